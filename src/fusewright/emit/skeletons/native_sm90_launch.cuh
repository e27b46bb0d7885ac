// Host side of the native Hopper matrix product: packing, tensor maps and the sequence of launches.
//
// To embed: the files it includes, each behind those that it includes itself, without these lines;
// then one hole struct per product (its members are listed in native_sm90.cuh) and
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
#include "fold_slabs.cuh"
#include "native_sm90.cuh"
#include "tensor_map.cuh"

namespace native90 {

// Element (row, k) of batch b at data[b * batch + row * row_stride + k * k_stride].
struct Matrix {
    const void* data;
    int64_t row_stride, k_stride, batch;
};

// D[m, n] = sum_k A[m, k] B[n, k] for `batches` pairs; a batch stride of 0 shares one matrix among all.
struct Problem {
    Matrix a, b;
    int rows, columns, depth, batches;
};

// How an operand is taken: contiguous along K, across its rows (both as they are), or as a packed copy.
enum class Layout { kAlongK, kAcross, kPacked };

// ----------------------------------------------------------------------------------------- packing

// As the product takes it: unchanged, rounded to bfloat16, or to TF32 (ties away from zero).
SM90_INLINE uint16_t packed(uint16_t x, uint16_t*) { return x; }
SM90_INLINE uint16_t packed(float x, uint16_t*) { return uint16_t(sm90::pack_bf16(x, 0.0f)); }
SM90_INLINE float packed(float x, float*) {
    uint32_t r;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(x));
    return __uint_as_float(r);
}

template <class T, int kCount>
struct alignas(sizeof(T) * kCount) Run {
    T at[kCount];
};

// target[batch][row][k] (rows of `pitch`) = source, contiguous along K. A thread packs 16 bytes.
template <class Source, class Target>
__global__ void __launch_bounds__(256) pack_rows_kernel(Matrix m, Target* target, int rows, int depth,
                                                        int64_t pitch) {
    constexpr int kRun = 16 / sizeof(Target);
    const int64_t at = (int64_t(blockIdx.x) * 256 + threadIdx.x) * kRun;
    const int row = int(at / pitch), k = int(at % pitch);
    if (row >= rows) return;
    const Source* source =
        static_cast<const Source*>(m.data) + blockIdx.z * m.batch + row * m.row_stride + k;
    Run<Target, kRun> out;
    if (k + kRun <= depth && (reinterpret_cast<uintptr_t>(source) & (sizeof(Source) * 4 - 1)) == 0) {
#pragma unroll
        for (int i = 0; i < kRun; i += 4) {
            const Run<Source, 4> in = *reinterpret_cast<const Run<Source, 4>*>(source + i);
#pragma unroll
            for (int e = 0; e < 4; ++e) out.at[i + e] = packed(in.at[e], (Target*)nullptr);
        }
    } else {
#pragma unroll
        for (int i = 0; i < kRun; ++i)
            out.at[i] = packed(k + i < depth ? source[i] : Source(0), (Target*)nullptr);
    }
    *reinterpret_cast<Run<Target, kRun>*>(target + blockIdx.z * (rows * pitch) + at) = out;
}

// The same for any strides, through tiles of 32 rows x 64 of K.
template <class Source, class Target>
__global__ void __launch_bounds__(256) pack_tiles_kernel(Matrix m, Target* target, int rows, int depth,
                                                         int64_t pitch) {
    __shared__ Target tile[64][33];
    const int x = threadIdx.x & 31, y = threadIdx.x >> 5;
    const int64_t row0 = int64_t(blockIdx.x) * 32, k0 = int64_t(blockIdx.y) * 64;
    const Source* source = static_cast<const Source*>(m.data) + blockIdx.z * m.batch;
    for (int k = y; k < 64; k += 8) {
        const bool inside = row0 + x < rows && k0 + k < depth;
        const Source v = inside ? source[(row0 + x) * m.row_stride + (k0 + k) * m.k_stride] : Source(0);
        tile[k][x] = packed(v, (Target*)nullptr);
    }
    __syncthreads();
    for (int row = y; row < 32; row += 8)
        for (int k = x; k < 64; k += 32)
            if (row0 + row < rows && k0 + k < pitch)
                target[blockIdx.z * (rows * pitch) + (row0 + row) * pitch + k0 + k] = tile[k][row];
}

// -------------------------------------------------------------------------------------- the launches

// A packed copy.
struct Copy {
    int batches;
    int64_t pitch;  // of a row, in elements
    size_t bytes;
};

template <class T>
inline Copy copy_of(const Matrix& m, bool wanted, int rows, int depth, int batches) {
    const int64_t size = sizeof(typename T::Stored);
    Copy c = {m.batch == 0 ? 1 : batches, int64_t(sm90::round_up(depth, 16 / size)), 0};
    if (wanted) c.bytes = sm90::round_up(size_t(c.batches) * rows * c.pitch * size, 256);
    return c;
}

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
    Copy a, b;
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

// Packs an operand into `copy` and replaces it by what was packed.
template <class Source, class Stored>
inline cudaError_t pack(Matrix& m, const Copy& at, uint8_t* copy, int rows, int depth,
                        cudaStream_t queue) {
    Stored* target = reinterpret_cast<Stored*>(copy);
    if (m.k_stride == 1) {
        const int64_t runs = rows * at.pitch * int64_t(sizeof(Stored)) / 16;
        pack_rows_kernel<Source><<<dim3(unsigned((runs + 255) / 256), 1, at.batches), 256, 0, queue>>>(
            m, target, rows, depth, at.pitch);
    } else {
        const dim3 grid((rows + 31) / 32, unsigned((at.pitch + 63) / 64), at.batches);
        pack_tiles_kernel<Source><<<grid, 256, 0, queue>>>(m, target, rows, depth, at.pitch);
    }
    m = {target, at.pitch, 1, at.batches > 1 ? rows * at.pitch : 0};
    return cudaGetLastError();
}

// Enqueues the whole product of operands stored as Source. Returns the first CUDA error.
template <class Tile, class Source, Layout kA, Layout kB, class Epilogue>
inline cudaError_t run(Problem p, const Epilogue& hole, void* workspace, cudaStream_t queue) {
    using Stored = typename Tile::Type::Stored;
    const Plan q = plan_of<Tile, kA, kB, Epilogue>(p);
    uint8_t* copies = static_cast<uint8_t*>(workspace) + q.partial_bytes;
    cudaError_t status = cudaSuccess;
    if constexpr (kA == Layout::kPacked)
        status = pack<Source, Stored>(p.a, q.a, copies, p.rows, p.depth, queue);
    if constexpr (kB == Layout::kPacked)
        if (status == cudaSuccess)
            status = pack<Source, Stored>(p.b, q.b, copies + q.a.bytes, p.columns, p.depth, queue);
    if (status != cudaSuccess) return status;
    return launch_product<Tile, kA == Layout::kAcross, kB == Layout::kAcross>(
        p, q, static_cast<float*>(workspace), hole, queue);
}

}  // namespace native90
