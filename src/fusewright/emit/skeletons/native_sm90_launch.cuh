// Host side of the native Hopper matrix product: packing, tensor maps and the sequence of launches.
//
// A product takes a hole struct (its members are listed in unit_finish.cuh) and
//   native90::run<Tile, Source, Layout of A, of B>(problem, hole, workspace, stream) -> cudaError_t
// Compile with -gencode arch=compute_90a,code=sm_90a; needs CUDA 12.0, no library.
//
// Launch protocol, all on one stream, no synchronisation, capturable in a CUDA graph:
//   [pack]   an operand of Layout::kPacked: a converted copy, contiguous along K. Needed where bulk
//            copies cannot address it: base, row pitch or batch stride not multiples of 16 bytes
//   native_kernel   the product and the hole
//   [fold]   only with a row or column fold: merges the partial buffer, calls `finish`
// Outputs must not overlap inputs. Extents are below 2^31.
//
// Workspace (workspace_bytes; aligned to 256; contents need not survive between calls): 4 * words *
// slabs * extent bytes of partial results, and the packed operands, rows padded to 16 bytes.
#pragma once
#include <type_traits>
#include "native_sm90.cuh"
#include "fold_slabs.cuh"
#include "pack.cuh"
#include "tensor_map.cuh"

namespace native90 {

using tiles::Matrix;
using tiles::Problem;

// How an operand is taken: contiguous along K, across its rows (both as they are), or as a packed copy.
enum class Layout { kAlongK, kAcross, kPacked };

// How operands stored as Source are packed.
template <class T, class Source>
using FormatOf = std::conditional_t<
    std::is_same_v<Source, uint16_t>, tiles::Unchanged,
    std::conditional_t<sizeof(typename T::Stored) == 2, tiles::ToBfloat16, tiles::ToTf32>>;

template <class T>
inline tiles::Copy copy_of(const Matrix& m, bool wanted, int rows, int depth, int batches) {
    using Format = FormatOf<T, typename T::Stored>;  // of the same size for any source
    tiles::Copy c = tiles::copy_of<Format>(m, rows, depth, batches);
    if (!wanted) c.bytes = 0;
    return c;
}

// -------------------------------------------------------------------------------------- the launches

// The operand's map, of what it is or of its packed copy; boxes of `lines` rows (or of 64 x 64).
template <class T>
inline cudaError_t map_of(PFN_cuTensorMapEncodeTiled_v12000 encode, CUtensorMap* map, const Matrix& m,
                          bool across, int rows, int depth, int batches, int lines) {
    constexpr int64_t kSize = sizeof(typename T::Stored);
    const auto type =
        kSize == 2 ? CU_TENSOR_MAP_DATA_TYPE_UINT16 : CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
    const int64_t pitch = (across ? m.k_stride : m.row_stride) * kSize;
    const int64_t inner = across ? rows : depth, outer = across ? depth : rows;
    // An operand of one line may have any pitch; maps want one of at least a line.
    const int64_t line = int64_t(sm90::round_up(inner * kSize, 16));
    const int64_t step = outer == 1 ? line : pitch;
    return sm90::make_map(encode, map, m.data, type, int(128 / kSize), inner, outer, batches, step,
                          batches > 1 ? m.batch * kSize : step * outer, across ? 64 : lines);
}

struct Plan {
    tiles::Copy a, b;
    int row_blocks, column_tiles, partial_slabs, partial_extent;
    size_t partial_bytes, bytes;
};

template <class Tile, Layout kA, Layout kB, class Epilogue>
inline Plan plan_of(const Problem& p) {
    using T = typename Tile::Type;
    Plan q = {};
    q.a = copy_of<T>(p.a, kA == Layout::kPacked, p.rows, p.depth, p.batches);
    q.b = copy_of<T>(p.b, kB == Layout::kPacked, p.columns, p.depth, p.batches);
    q.row_blocks = (p.rows + kRows * Tile::kCluster - 1) / (kRows * Tile::kCluster);
    q.column_tiles = (p.columns + Tile::kColumns - 1) / Tile::kColumns;
    if (Epilogue::kPartialWords > 0) {
        constexpr int kWidth = Finish<Tile, Epilogue>::kWidth;
        q.partial_slabs = Epilogue::kFoldsOverN ? q.column_tiles * (Tile::kColumns / kWidth)
                                                : (p.rows + kFoldRows - 1) / kFoldRows;
        q.partial_extent = Epilogue::kFoldsOverN ? p.rows : p.columns;
    }
    q.partial_bytes = sm90::round_up(
        size_t(p.batches) * q.partial_slabs * Epilogue::kPartialWords * q.partial_extent * 4, 256);
    q.bytes = q.partial_bytes + q.a.bytes + q.b.bytes;
    return q;
}

template <class Tile, bool kAcrossA, bool kAcrossB, class Epilogue>
inline cudaError_t launch_product(const Problem& p, const Plan& q, float* partial, const Epilogue& hole,
                                  cudaStream_t queue) {
    using T = typename Tile::Type;
    int device = 0, units = 0;
    PFN_cuTensorMapEncodeTiled_v12000 encode = nullptr;
    CUtensorMap a_map, b_map;
    cudaError_t status = cudaGetDevice(&device);
    if (status == cudaSuccess)
        status = cudaDeviceGetAttribute(&units, cudaDevAttrMultiProcessorCount, device);
    if (status == cudaSuccess) status = sm90::encoder(&encode);
    if (status == cudaSuccess)
        status = map_of<T>(encode, &a_map, p.a, kAcrossA, p.rows, p.depth, q.a.batches, kRows);
    if (status == cudaSuccess)
        status = map_of<T>(encode, &b_map, p.b, kAcrossB, p.columns, p.depth, q.b.batches,
                           Tile::kColumns / Tile::kCluster);
    const auto kernel = native_kernel<Tile, kAcrossA, kAcrossB, Epilogue>;
    if (status == cudaSuccess)
        status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Tile::kBytes);
    if (status != cudaSuccess) return status;
    const Args args = {p.rows, p.columns, (p.depth + Tile::kDepth - 1) / Tile::kDepth, p.batches,
                       q.row_blocks, q.column_tiles, p.a.batch != 0, p.b.batch != 0, partial,
                       q.partial_slabs, q.partial_extent};
    const int64_t tiles = int64_t(p.batches) * q.row_blocks * q.column_tiles;
    const int grid = int(min(tiles, int64_t(units / Tile::kCluster))) * Tile::kCluster;
    kernel<<<grid, kThreads, Tile::kBytes, queue>>>(a_map, b_map, args, hole);
    if ((status = cudaGetLastError()) != cudaSuccess) return status;
    return tiles::launch_fold(args, hole, p.batches, queue);
}

// Bytes of device memory that `run` needs; 256-byte aligned.
template <class Tile, Layout kA, Layout kB, class Epilogue>
inline size_t workspace_bytes(const Problem& p) {
    return plan_of<Tile, kA, kB, Epilogue>(p).bytes;
}

// Enqueues the whole product of operands stored as Source. Returns the first CUDA error.
template <class Tile, class Source, Layout kA, Layout kB, class Epilogue>
inline cudaError_t run(Problem p, const Epilogue& hole, void* workspace, cudaStream_t queue) {
    using Format = FormatOf<typename Tile::Type, Source>;
    const Plan q = plan_of<Tile, kA, kB, Epilogue>(p);
    uint8_t* copies = static_cast<uint8_t*>(workspace) + q.partial_bytes;
    cudaError_t status = cudaSuccess;
    if constexpr (kA == Layout::kPacked)
        status = tiles::pack<Format>(p.a, q.a, copies, p.rows, p.depth, queue);
    if constexpr (kB == Layout::kPacked)
        if (status == cudaSuccess)
            status = tiles::pack<Format>(p.b, q.b, copies + q.a.bytes, p.columns, p.depth, queue);
    if (status != cudaSuccess) return status;
    return launch_product<Tile, kA == Layout::kAcross, kB == Layout::kAcross>(
        p, q, static_cast<float*>(workspace), hole, queue);
}

}  // namespace native90
