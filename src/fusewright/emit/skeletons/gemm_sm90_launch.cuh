// Host side of the Hopper matrix product: workspace, tensor maps and the sequence of launches.
//
// A product takes a hole struct (its members are listed in gemm_sm90_finish.cuh) and
//   gemm90::run(problem, hole, workspace, safe_only, stream) -> cudaError_t
// Compile with -gencode arch=compute_90a,code=sm_90a; needs CUDA 12.0, no library.
//
// Launch protocol, all on one stream, no synchronisation, capturable in a CUDA graph:
//   [align]    only if bulk copies cannot address S: base, row pitch or batch stride not multiples of
//              16 bytes; writes an aligned copy of S
//   prepare<2> lowers the flag, splits P into fp16 pairs, samples the rows of S
//   gemm<Fast> the product and the hole; may raise the flag. With kSlices > 1 it leaves sums over
//              slices of K, and a kernel behind it adds them in a fixed order and runs the hole
//   prepare<3> and gemm<Safe>   return at once while the flag is down, else redo everything in bf16
//   [fold]     only with a row or column fold: merges the partial buffer, calls `finish`
// The hole runs twice if the flag is raised: it must only store what it computes, never read what it
// has stored. Outputs must not overlap inputs.
//
// Workspace (workspace_bytes; aligned to 256; contents need not survive between calls), for P of
// `columns` rows and depth K padded to 64: 6 bytes per element of P (per batch of its own) + 4 bytes
// per row of S + 8 per row of P padded to 128 + the partial buffer, 4 * words * slabs * extent: slabs
// = rows / 16 for a fold along S, columns / 128 for one along P. Plus 4 bytes per element of S for the
// aligned copy, and 4 per slice and element of D padded to 256 x 128 with more than one slice.
//
// Limits: extents below 2^31; an infinity meets a factor below 2^-147 of its row's maximum as a zero
// (NaN where float32 gives infinity); a row of S whose sampled maximum is below 2^-80 may hold nothing
// above 2^88.
#pragma once
#include "gemm_sm90_prepare.cuh"
#include "fold_slabs.cuh"
#include "tensor_map.cuh"

namespace gemm90 {

// D[i, j] = sum_k S[i, k] P[j, k] for `batches` pairs. One of an operand's strides is 1 (k_stride: it
// is K-major); a batch stride of 0 shares one matrix among all batches.
struct Problem {
    Matrix stream, planes;
    int rows, columns, depth, batches;
};

// Offsets into the workspace, and what the launches need to know; computed the same way every time.
struct Plan {
    int stream_batches, plane_batches, padded_columns, padded_depth;
    int partial_slabs, partial_extent, row_blocks;
    bool align_stream;
    int64_t stream_pitch, tiles;
    size_t exponent_at, stat_at, planes_at, partial_at, stream_at, slices_at, bytes;
};

using sm90::round_up;

inline bool addressable(const Matrix& m) {
    const int64_t pitch = m.k_stride == 1 ? m.row_stride : m.k_stride;
    return reinterpret_cast<uintptr_t>(m.data) % 16 == 0 && pitch % 4 == 0 && m.batch % 4 == 0;
}

template <class Epilogue>
inline Plan plan_of(const Problem& p) {
    Plan q = {};
    q.stream_batches = p.stream.batch == 0 ? 1 : p.batches;
    q.plane_batches = p.planes.batch == 0 ? 1 : p.batches;
    q.padded_columns = int(round_up(p.columns, kColumns));
    q.padded_depth = int(round_up(p.depth, kChunk));
    if (Epilogue::kPartialWords > 0) {
        const bool rows = Finish<Epilogue>::kFoldsRows;
        q.partial_slabs = rows ? int(round_up(p.rows, kFoldRows)) / kFoldRows
                               : q.padded_columns / kColumns;
        q.partial_extent = rows ? p.columns : p.rows;
    }
    q.align_stream = !addressable(p.stream);
    const int inner = p.stream.k_stride == 1 ? p.depth : p.rows;
    q.stream_pitch = int64_t(round_up(inner, 4));
    const int64_t outer = p.stream.k_stride == 1 ? p.rows : p.depth;
    size_t at = 256;  // the flag
    const auto take = [&at](size_t bytes) {
        const size_t start = at;
        at = round_up(at + bytes, 256);
        return start;
    };
    q.exponent_at = take(size_t(q.stream_batches) * p.rows * 4);
    q.stat_at = take(size_t(q.plane_batches) * q.padded_columns * sizeof(PlaneStat));
    q.planes_at = take(size_t(q.plane_batches) * Safe::kPlanes * p.columns * q.padded_depth * 2);
    q.partial_at = take(size_t(p.batches) * q.partial_slabs * Epilogue::kPartialWords *
                        q.partial_extent * 4);
    q.stream_at = take(q.align_stream ? size_t(q.stream_batches) * q.stream_pitch * outer * 4 : 0);
    q.row_blocks = (p.rows + kCluster * kRows - 1) / (kCluster * kRows);
    q.tiles = int64_t(p.batches) * q.row_blocks * (q.padded_columns / kColumns);
    q.slices_at =
        take(Epilogue::kSlices > 1 ? size_t(q.tiles) * Epilogue::kSlices * kUnits * kUnitBytes : 0);
    q.bytes = at;
    return q;
}

inline cudaError_t stream_map_of(PFN_cuTensorMapEncodeTiled_v12000 encode, CUtensorMap* map,
                                 const Problem& p, const Plan& q, const Matrix& stream) {
    const bool along_k = stream.k_stride == 1;
    const int64_t pitch = (along_k ? stream.row_stride : stream.k_stride) * 4;
    const int64_t outer = along_k ? p.rows : p.depth;
    return sm90::make_map(encode, map, stream.data, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 32,
                          along_k ? p.depth : p.rows, outer, q.stream_batches, pitch,
                          q.stream_batches > 1 ? stream.batch * 4 : pitch * outer, 64);
}

inline cudaError_t plane_map_of(PFN_cuTensorMapEncodeTiled_v12000 encode, CUtensorMap* map,
                                const Problem& p, const Plan& q, const uint16_t* planes, int count) {
    return sm90::make_map(encode, map, planes, CU_TENSOR_MAP_DATA_TYPE_UINT16, 64, q.padded_depth,
                          p.columns, int64_t(q.plane_batches) * count, int64_t(q.padded_depth) * 2,
                          int64_t(q.padded_depth) * 2 * p.columns, 64);
}

// The product by `gemm_kernel`.
template <class Scheme, bool kMajorK, class Epilogue>
inline cudaError_t launch_product(const Plan& q, const CUtensorMap& stream_map,
                                  const CUtensorMap& plane_map, const Args& args, const Epilogue& hole,
                                  int units, cudaStream_t queue) {
    const int64_t work = q.tiles * Epilogue::kSlices;
    const int grid = int(min(work, int64_t(units / kCluster))) * kCluster;
    const auto kernel = gemm_kernel<Scheme, kMajorK, Epilogue>;
    constexpr int kBytes = Layout<Scheme>::kBytes;
    const cudaError_t status =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
    if (status != cudaSuccess) return status;
    kernel<<<grid, kThreads, kBytes, queue>>>(stream_map, plane_map, args, hole);
    if constexpr (Epilogue::kSlices > 1)
        slices_kernel<Scheme, kMajorK><<<unsigned(q.tiles * kUnits), 128, 0, queue>>>(args, hole);
    return cudaGetLastError();
}

// How the fp16 product is launched; for small depths gemm_sm90_short_launch.cuh has another way.
template <class Epilogue, class = void>
struct FastProduct {
    template <bool kMajorK>
    static cudaError_t launch(const Plan& q, const CUtensorMap& stream_map, const CUtensorMap& plane_map,
                              const Args& args, const Epilogue& hole, int units, cudaStream_t queue) {
        return launch_product<Fast, kMajorK>(q, stream_map, plane_map, args, hole, units, queue);
    }
};

inline Division division_of(const Prepare& a) {
    if (a.planes_source.k_stride != 1) return Division::kStrips;
    const bool many = int64_t(a.columns) * a.plane_batches >= 1024;  // enough to fill the device
    return a.depth <= 2048 && many ? Division::kWarpRows : Division::kBlockRows;
}

// What `prepare_kernel` needs of a hole; products whose operands lie in memory share their kernels.
struct Unmapped {
    static constexpr bool kMapsStream = false, kMapsPlanes = false;
};

template <class Hole>
inline auto maps_of(const Hole& hole) {
    if constexpr (Hole::kMapsStream || Hole::kMapsPlanes) {
        return hole;
    } else {
        return Unmapped();
    }
}

template <int kPlanes, Division kKnown, class Hole>
inline cudaError_t launch_prepare(const Prepare& a, const Hole& hole, cudaStream_t queue) {
    const Division division = kKnown == Division::kAny ? division_of(a) : kKnown;
    const int threads = division == Division::kBlockRows && a.depth > 4096 ? 1024 : 256;
    const int rows_per_block = division == Division::kStrips     ? 32
                               : division == Division::kWarpRows ? threads / 32
                                                                 : 1;
    const int split = a.plane_batches * (a.padded_columns / rows_per_block);
    const int64_t per_row = a.stream_source.k_stride == 1 ? 32 : 1;
    const int64_t samples = int64_t(a.rows) * a.stream_batches * per_row;
    const int blocks = split + (kPlanes == 2 ? int((samples + threads - 1) / threads) : 0);
    if constexpr (kKnown != Division::kAny) {
        prepare_kernel<kPlanes, kKnown, Hole><<<blocks, threads, 0, queue>>>(a, hole, split);
    } else {
        const auto kernel =
            division == Division::kStrips     ? prepare_kernel<kPlanes, Division::kStrips, Hole>
            : division == Division::kWarpRows ? prepare_kernel<kPlanes, Division::kWarpRows, Hole>
                                              : prepare_kernel<kPlanes, Division::kBlockRows, Hole>;
        kernel<<<blocks, threads, 0, queue>>>(a, hole, split);
    }
    return cudaGetLastError();
}

// Bytes of device memory that `run` needs; 256-byte aligned.
template <class Epilogue>
inline size_t workspace_bytes(const Problem& p) {
    return plan_of<Epilogue>(p).bytes;
}

// Enqueues the whole product. `safe_only` skips the fp16 attempt. Returns the first CUDA error.
template <bool kMajorK, class Epilogue>
inline cudaError_t run_major(const Problem& p, const Epilogue& hole, void* workspace, bool safe_only,
                             cudaStream_t queue) {
    const Plan q = plan_of<Epilogue>(p);
    uint8_t* space = static_cast<uint8_t*>(workspace);
    int device = 0, units = 0;
    PFN_cuTensorMapEncodeTiled_v12000 encode = nullptr;
    cudaError_t status = cudaGetDevice(&device);
    if (status == cudaSuccess)
        status = cudaDeviceGetAttribute(&units, cudaDevAttrMultiProcessorCount, device);
    if (status == cudaSuccess) status = sm90::encoder(&encode);
    if (status != cudaSuccess) return status;

    Matrix stream = p.stream;
    if (q.align_stream) {
        float* copy = reinterpret_cast<float*>(space + q.stream_at);
        const int inner = kMajorK ? p.depth : p.rows, outer = kMajorK ? p.rows : p.depth;
        const dim3 grid((inner + 255) / 256, min(outer, 4096), q.stream_batches);
        align_kernel<<<grid, 256, 0, queue>>>(p.stream, copy, p.rows, p.depth, q.stream_pitch,
                                              q.stream_pitch * outer);
        if ((status = cudaGetLastError()) != cudaSuccess) return status;
        stream = {copy, kMajorK ? q.stream_pitch : 1, kMajorK ? 1 : q.stream_pitch,
                  q.stream_batches > 1 ? q.stream_pitch * outer : 0};
    }
    uint16_t* planes = reinterpret_cast<uint16_t*>(space + q.planes_at);
    PlaneStat* stat = reinterpret_cast<PlaneStat*>(space + q.stat_at);
    int* exponent = reinterpret_cast<int*>(space + q.exponent_at);
    int* flag = reinterpret_cast<int*>(space);
    const Prepare prepare = {p.planes, stream, p.columns, q.padded_columns, p.depth, q.padded_depth,
                             q.plane_batches, p.rows, q.stream_batches, kMajorK, planes, stat,
                             exponent, flag};
    const int column_tiles = q.padded_columns / kColumns, chunks = q.padded_depth / kChunk;
    const Args args = {p.rows, p.columns, p.depth, chunks, p.batches, q.row_blocks, column_tiles,
                       p.stream.batch != 0, p.planes.batch != 0, q.padded_columns, exponent, stat, flag,
                       reinterpret_cast<float*>(space + q.partial_at), q.partial_slabs,
                       q.partial_extent, (chunks + Epilogue::kSlices - 1) / Epilogue::kSlices,
                       reinterpret_cast<float4*>(space + q.slices_at)};
    CUtensorMap map, pairs, triples;
    status = stream_map_of(encode, &map, p, q, stream);
    if (status == cudaSuccess) status = plane_map_of(encode, &pairs, p, q, planes, Fast::kPlanes);
    if (status == cudaSuccess) status = plane_map_of(encode, &triples, p, q, planes, Safe::kPlanes);
    constexpr Division kDivision = Epilogue::kDivision;
    const auto maps = maps_of(hole);
    if (status == cudaSuccess) status = launch_prepare<2, kDivision>(prepare, maps, queue);
    if (status == cudaSuccess && !safe_only)
        status = FastProduct<Epilogue>::template launch<kMajorK>(q, map, pairs, args, hole, units, queue);
    if (status == cudaSuccess && safe_only) status = cudaMemsetAsync(flag, 1, 4, queue);
    if (status == cudaSuccess) status = launch_prepare<3, kDivision>(prepare, maps, queue);
    if (status == cudaSuccess)
        status = launch_product<Safe, kMajorK>(q, map, triples, args, hole, units, queue);
    return status == cudaSuccess ? tiles::launch_fold(args, hole, p.batches, queue) : status;
}

template <class Epilogue>
inline cudaError_t run(const Problem& p, const Epilogue& hole, void* workspace, bool safe_only,
                       cudaStream_t queue) {
    return p.stream.k_stride == 1 ? run_major<true>(p, hole, workspace, safe_only, queue)
                                  : run_major<false>(p, hole, workspace, safe_only, queue);
}

}  // namespace gemm90
