// Float32-accurate matrix products on Hopper's tensor cores, with typed holes for what follows.
//
//   D[i, j] = sum over k of S[i, k] * P[j, k]        (per batch)
//
// S, the *streamed* operand, is read as float32 through bulk tensor copies and split into 16-bit terms
// in registers; P, the *planes* operand, is split once per call by `gemm_sm90_prepare.cuh` into 16-bit
// planes that stay in the L2 cache. The larger operand is streamed: it is then read once and nothing
// of its size is ever written. `Epilogue::kSwapped` says how D maps to the user's C: C[m, n] is
// D[i = m, j = n], or D[i = n, j = m] when the weights are streamed.
//
// Schemes. `Fast`: two fp16 terms, three products (lo*hi, hi*lo, hi*hi) after exact scaling by a power
// of two per row. `Safe`: three bf16 terms, six products. The tensor core truncates when it
// accumulates, so every 64 (short K: 32) along K start from zero and are added to a float32 sum with
// ordinary rounding; the small products come first (Ootomo & Yokota, arXiv 2203.03341; bit-level model:
// Khattak & Mikaitis, arXiv 2512.07004).
//
// Guard. Terms below 2^-24 (scaled) vanish in fp16. S[i, k] is thus known to within 2^-25 at worst, and
// the split of P has measured what it lost, so D[i, j] is known to within 2^-25 * bound[j] with
// bound[j] = sum_k |P[j, k]| + 2^41 * (sum_k of what P[j, k] lost), as |S| < 2^16. Each warp compares
// the sum of squares of this bound over its 16 rows of a tile, in true units, with the sum of squares
// of the results; if the first is not below 2^-46 of the second, or anything is not finite, it raises
// `flag`: what the fp16 range costs is below 2^-23 in relative L2. The Safe product and its
// split are always launched behind the Fast one and return at once while the flag is down: no host
// synchronisation, so the sequence can be captured in a CUDA graph. The result does not depend on the
// order in which tiles run.
//
// Shape of the kernel: clusters of two CTAs that share the tile of P (each loads half and multicasts
// it), one warpgroup of producers, two warpgroups of consumers with 64 x 128 of D each; persistent.
#pragma once
#include "gemm_sm90_finish.cuh"
#include "gemm_sm90_multiply.cuh"

namespace gemm90 {

// ------------------------------------------------------------------------------------- producers

// Chunk `c` of `kGroups` * 64 rows of S from `row` on.
template <bool kMajorK, int kGroups>
SM90_INLINE void copy_stream(uint32_t target, const CUtensorMap* map, int row, int c, int batch,
                             uint32_t barrier) {
#pragma unroll 1
    for (int b = 0; b < 2 * kGroups; ++b) {
        const int x = kMajorK ? c * kChunk + 32 * (b & 1) : row + 32 * b;
        const int y = kMajorK ? row + 64 * (b >> 1) : c * kChunk;
        sm90::copy_box(target + b * (kGroupBytes / 2), map, x, y, batch, barrier);
    }
}

template <class Scheme, bool kMajorK, int kSlices>
SM90_INLINE void produce_stream(const CUtensorMap* map, const Args& a, uint32_t base, int rank,
                                int first, int step, int tiles) {
    using Smem = Layout<Scheme>;
    Ring<Scheme::kStreamStages> ring;
    for (int tile = first; tile < tiles; tile += step) {
        const Place at = place_of<kSlices>(tile, a, rank);
        const int batch = at.batch * a.stream_batched;
        for (int c = at.chunk; c < at.chunk + at.chunks; ++c, ring.next()) {
            const uint32_t target = base + ring.stage * kStreamBytes;
            const uint32_t barrier = base + Smem::kStreamFull + 8 * ring.stage;
            sm90::barrier_wait(base + Smem::kStreamEmpty + 8 * ring.stage, ring.parity ^ 1);
            sm90::barrier_expect(barrier, kStreamBytes);
            copy_stream<kMajorK, kRows / 64>(target, map, at.row, c, batch, barrier);
        }
    }
}

template <class Scheme, int kSlices>
SM90_INLINE void produce_planes(const CUtensorMap* map, const Args& a, uint32_t base, int rank,
                                int first, int step, int tiles) {
    using Smem = Layout<Scheme>;
    constexpr int kShare = kColumns / kCluster;
    Ring<Scheme::kPlaneStages> ring;
    for (int tile = first; tile < tiles; tile += step) {
        const Place at = place_of<kSlices>(tile, a, rank);
        const int plane = at.batch * a.plane_batched * Scheme::kPlanes;
        for (int c = at.chunk; c < at.chunk + at.chunks; ++c, ring.next()) {
            const uint32_t target = base + Smem::kPlanesAt + ring.stage * Smem::kPlaneStage;
            const uint32_t barrier = base + Smem::kPlaneFull + 8 * ring.stage;
            sm90::barrier_wait(base + Smem::kPlaneEmpty + 8 * ring.stage, ring.parity ^ 1);
            sm90::barrier_expect(barrier, Smem::kPlaneStage);
#pragma unroll 1
            for (int p = 0; p < Scheme::kPlanes; ++p)
                sm90::copy_box_multicast(
                    target + p * kPlaneBytes + rank * (kPlaneBytes / kCluster), map, c * kChunk,
                    at.column + rank * kShare, plane + p, barrier, 3);
        }
    }
}

// ------------------------------------------------------------------------------------- consumers

// Exponent h by which a streamed row is scaled. Safe needs it only to stay below the value that rounds
// to infinity in bf16, and to lift tiny rows out of the range where the third term would vanish.
template <class Scheme>
SM90_INLINE int stream_shift(int exponent) {
    if constexpr (Scheme::kPlanes == 2) return min(max(kStreamTarget - exponent, -126), 126);
    return exponent < -80 ? 40 : -2;
}

// Asks for the exponents of the next tile's rows: the first thing it will wait for.
template <int kSlices>
SM90_INLINE void prefetch_rows(const Args& a, int tile, int tiles, int rank, int group, int warp,
                               int lane) {
    if (lane != 0 || tile >= tiles) return;
    const Place at = place_of<kSlices>(tile, a, rank);
    const int row = min(at.row + group * 64 + warp * 16, a.rows - 1);
    sm90::prefetch(a.stream_exponent + int64_t(at.batch) * a.stream_batched * a.rows + row);
}

// Where a warp of consumers stands in a tile, and how its two rows are scaled.
template <class Scheme, bool kMajorK>
struct Rows {
    int first, row[2], shift[2];
    bool relevant[2];  // a row of zeros has no rounding to guard against

    SM90_INLINE Rows(const Args& a, const Place& at, int group, int warp, int lane) {
        first = at.row + group * 64 + warp * 16;
        row[0] = first + fragment_row<kMajorK>(lane >> 2);
        row[1] = row[0] + 8;
        const int* exponents = a.stream_exponent + int64_t(at.batch) * a.stream_batched * a.rows;
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const int exponent = row[r] < a.rows ? exponents[row[r]] : kZeroRow;
            relevant[r] = exponent != kZeroRow;
            shift[r] = stream_shift<Scheme>(exponent);
        }
    }
};

SM90_INLINE const PlaneStat* stats_of(const Args& a, const Place& at) {
    return a.plane_stat + int64_t(at.batch) * a.plane_batched * a.padded_columns + at.column;
}

// A warp's finished sums on their way to the hole.
template <class Scheme, bool kMajorK, class Epilogue>
SM90_INLINE void finish(const Args& a, const Epilogue& hole, const Place& at,
                        const Rows<Scheme, kMajorK>& rows, int lane, float (&sum)[64]) {
    const int pair = 2 * (lane & 3);
    unscale<Scheme::kPlanes == 2>(sum, stats_of(a, at) + pair, rows.shift, rows.relevant, a.flag);
    Finish<Epilogue>::template run<Scheme::kPlanes == 2>(a, hole, at.batch, rows.row, rows.first,
                                                         at.column + pair, lane, sum);
}

template <class Scheme, bool kMajorK, class Epilogue, class Me>
SM90_INLINE void consume(const Args& a, const Epilogue& hole, Me& me, int group, int warp, int rank,
                         int first, int step, int tiles) {
    constexpr int kSlices = Epilogue::kSlices;
    for (int tile = first; tile < tiles; tile += step) {
        const Place at = place_of<kSlices>(tile, a, rank);
        if (me.lane < 8) sm90::prefetch(stats_of(a, at) + me.lane * (kColumns / 8));
        prefetch_rows<kSlices>(a, tile + step, tiles, rank, group, warp, me.lane);
        const Rows<Scheme, kMajorK> rows(a, at, group, warp, me.lane);
        float scale[2], sum[64];
#pragma unroll
        for (int r = 0; r < 2; ++r) scale[r] = sm90::power_of_two(rows.shift[r]);
#pragma unroll
        for (int i = 0; i < 64; ++i) sum[i] = 0.0f;
        me.map.start(at, rows.row);
        multiply<Epilogue>(me, at.chunks, scale, sum);
        if constexpr (kSlices == 1) {
            finish(a, hole, at, rows, me.lane, sum);
        } else if (rows.first < a.rows) {
            float4* target = a.slices + (int64_t(tile) * kUnits + rank * 8 + group * 4 + warp) * 512;
#pragma unroll
            for (int i = 0; i < 16; ++i)
                target[i * 32 + me.lane] =
                    make_float4(sum[4 * i], sum[4 * i + 1], sum[4 * i + 2], sum[4 * i + 3]);
        }
    }
}

// With kSlices > 1: the sum over slices of one warp's part of a tile, in a fixed order (each of four
// warps adds every fourth slice, then the four are added), and what follows.
template <class Scheme, bool kMajorK, class Epilogue>
__global__ void __launch_bounds__(128) slices_kernel(const Args a, const Epilogue hole) {
    if (Scheme::kPlanes == 3 && *a.flag == 0) return;
    __shared__ float4 others[3][16][32];
    const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, unit = blockIdx.x % kUnits;
    const Place at = place_of(blockIdx.x / kUnits, a, unit >> 3);
    if (at.row + (unit & 7) * 16 >= a.rows) return;
    float sum[64];
#pragma unroll
    for (int i = 0; i < 64; ++i) sum[i] = 0.0f;
#pragma unroll 2
    for (int s = warp; s < Epilogue::kSlices; s += 4) {
        const float4* source = a.slices + (int64_t(s) * gridDim.x + blockIdx.x) * 512 + lane;
#pragma unroll
        for (int i = 0; i < 16; ++i) {
            const float4 v = source[i * 32];
            sum[4 * i] += v.x, sum[4 * i + 1] += v.y, sum[4 * i + 2] += v.z, sum[4 * i + 3] += v.w;
        }
    }
    if (warp > 0)
#pragma unroll
        for (int i = 0; i < 16; ++i)
            others[warp - 1][i][lane] =
                make_float4(sum[4 * i], sum[4 * i + 1], sum[4 * i + 2], sum[4 * i + 3]);
    __syncthreads();
    if (warp > 0) return;
#pragma unroll
    for (int s = 0; s < 3; ++s)
#pragma unroll
        for (int i = 0; i < 16; ++i) {
            const float4 v = others[s][i][lane];
            sum[4 * i] += v.x, sum[4 * i + 1] += v.y, sum[4 * i + 2] += v.z, sum[4 * i + 3] += v.w;
        }
    const Rows<Scheme, kMajorK> rows(a, at, (unit >> 2) & 1, unit & 3, lane);
    finish(a, hole, at, rows, lane, sum);
}

// ---------------------------------------------------------------------------------------- kernel

template <class Scheme, bool kMajorK, class Epilogue>
__global__ void __cluster_dims__(kCluster, 1, 1) __launch_bounds__(kThreads, 1)
    gemm_kernel(const __grid_constant__ CUtensorMap stream_map,
                const __grid_constant__ CUtensorMap plane_map, const Args a, const Epilogue hole) {
    using Smem = Layout<Scheme>;
    extern __shared__ uint8_t raw[];
    if (Scheme::kPlanes == 3 && *a.flag == 0) return;

    const uint32_t base = (sm90::shared_address(raw) + 1023u) & ~1023u;
    const int rank = sm90::cluster_rank();
    const int warp = __shfl_sync(0xffffffffu, threadIdx.x >> 5, 0);
    const int lane = threadIdx.x & 31;
    const int first = blockIdx.x / kCluster, step = gridDim.x / kCluster;
    constexpr int kSlices = Epilogue::kSlices;
    const int tiles = a.batches * a.row_blocks * a.column_tiles * kSlices;

    if (threadIdx.x == 0) {
        for (int s = 0; s < Scheme::kStreamStages; ++s) {
            sm90::barrier_init(base + Smem::kStreamFull + 8 * s, 1);
            sm90::barrier_init(base + Smem::kStreamEmpty + 8 * s, 8);
        }
        for (int s = 0; s < Scheme::kPlaneStages; ++s) {
            sm90::barrier_init(base + Smem::kPlaneFull + 8 * s, 1);
            sm90::barrier_init(base + Smem::kPlaneEmpty + 8 * s, 8 * kCluster);
        }
        sm90::barrier_init_fence();
        sm90::prefetch_map(&stream_map);
        sm90::prefetch_map(&plane_map);
    }
    sm90::cluster_sync();

    if (warp < 4) {
        sm90::registers_release<40>();
        if (warp == 0 && lane == 0)
            produce_stream<Scheme, kMajorK, kSlices>(&stream_map, a, base, rank, first, step, tiles);
        if (warp == 1 && lane == 0)
            produce_planes<Scheme, kSlices>(&plane_map, a, base, rank, first, step, tiles);
    } else {
        sm90::registers_acquire<232>();
        const int group = (warp >> 2) - 1;
        Consumer<Scheme, kMajorK, StreamMap<Epilogue, kMajorK>> me = {
            base, StreamReader<kMajorK>(group, warp & 3, lane), {}, {}, lane, 0, 0, 0, {hole, a}};
        consume<Scheme, kMajorK>(a, hole, me, group, warp & 3, rank, first, step, tiles);
    }
    __syncwarp();
    sm90::cluster_sync();  // no CTA leaves while its peer may still write to it
}

}  // namespace gemm90
