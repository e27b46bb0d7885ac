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
// accumulates, so every chunk of 64 along K starts from zero and is added to a float32 sum with
// ordinary rounding; the small products come first (Ootomo & Yokota, arXiv 2203.03341; bit-level model:
// Khattak & Mikaitis, arXiv 2512.07004).
//
// Guard. Terms below 2^-24 (scaled) vanish in fp16. S[i, k] is thus known to within 2^-25 at worst, and
// the split of P has measured what it lost, so D[i, j] is known to within 2^-25 * bound[j] with
// bound[j] = sum_k |P[j, k]| + 2^41 * (sum_k of what P[j, k] lost), as |S| < 2^16. Each warp compares
// the sum of squares of this bound over its part of a row with the sum of squares of the result; if
// the first is not below 2^-46 of the second, or anything is not finite, it raises `flag`. The Safe product and its
// split are always launched behind the Fast one and return at once while the flag is down: no host
// synchronisation, so the sequence can be captured in a CUDA graph. The result does not depend on the
// order in which tiles run.
//
// Shape of the kernel: clusters of two CTAs that share the tile of P (each loads half and multicasts
// it), one warpgroup of producers, two warpgroups of consumers with 64 x 128 of D each; persistent.
#pragma once
#include "sm90.cuh"

namespace gemm90 {

constexpr int kChunk = 64;        // along K, per pipeline stage and per promotion
constexpr int kRows = 128;        // of S per CTA: 64 per consumer warpgroup
constexpr int kColumns = 128;     // of P per cluster
constexpr int kCluster = 2;
constexpr int kThreads = 384;
constexpr int kRaster = 8;        // column tiles that run side by side, for the L2 cache
constexpr int kStreamBytes = kRows * kChunk * 4;
constexpr int kPlaneBytes = kColumns * kChunk * 2;
constexpr int kFoldRows = 16;     // streamed rows that share one entry of the partial buffer
constexpr int kStreamTarget = 10; // a streamed row's sampled maximum is scaled to [2^10, 2^11)
constexpr int kPlaneTarget = 14;  // a planes row's maximum to [2^14, 2^15)
constexpr int kZeroRow = -1000;   // exponent of a streamed row without a nonzero finite element

struct Fast {
    static constexpr int kPlanes = 2;
    static constexpr int kStreamStages = 4;
    static constexpr int kPlaneStages = 3;
};

struct Safe {
    static constexpr int kPlanes = 3;
    static constexpr int kStreamStages = 2;
    static constexpr int kPlaneStages = 3;
};

// Per row of P, in scaled units: true value = scaled value * 2^exponent.
struct PlaneStat {
    int exponent;
    float bound;  // see the guard above
};

struct Args {
    int rows, columns, chunks, batches;
    int row_blocks, column_tiles;    // of 2 * kRows and kColumns
    int stream_batched, plane_batched;  // 0: one matrix for every batch
    int padded_columns;              // of PlaneStat per batch
    const int* stream_exponent;      // per streamed row: floor(log2) of its sampled maximum, or kZeroRow
    const PlaneStat* plane_stat;
    int* flag;
    float* partial;                  // [batch][slab][word][row or column of the fold]
    int partial_slabs, partial_extent;
};

template <class Scheme>
struct Layout {
    static constexpr int kPlaneStage = Scheme::kPlanes * kPlaneBytes;
    static constexpr int kPlanesAt = Scheme::kStreamStages * kStreamBytes;
    static constexpr int kBarriersAt = kPlanesAt + Scheme::kPlaneStages * kPlaneStage;
    static constexpr int kBarriers = 2 * (Scheme::kStreamStages + Scheme::kPlaneStages);
    static constexpr int kStreamFull = kBarriersAt;
    static constexpr int kStreamEmpty = kStreamFull + 8 * Scheme::kStreamStages;
    static constexpr int kPlaneFull = kStreamEmpty + 8 * Scheme::kStreamStages;
    static constexpr int kPlaneEmpty = kPlaneFull + 8 * Scheme::kPlaneStages;
    static constexpr int kBytes = kBarriersAt + kBarriers * 8 + 1024;  // 1024: alignment of the base
    static_assert(kBytes <= 232448, "a block has 227 KB of shared memory");
};

// Position in a ring of stages: `parity` flips each time round.
template <int kStages>
struct Ring {
    int stage = 0;
    uint32_t parity = 0;
    SM90_INLINE void next() {
        if (++stage == kStages) {
            stage = 0;
            parity ^= 1;
        }
    }
};

struct Place {
    int batch, row, column;  // first row of the CTA, first column of the cluster
};

// Tiles in groups of kRaster columns: a wave of clusters then covers a compact rectangle of D.
SM90_INLINE Place place_of(int tile, const Args& a, int rank) {
    const int per_batch = a.row_blocks * a.column_tiles;
    const int batch = tile / per_batch;
    const int rest = tile - batch * per_batch;
    const int group = rest / (a.row_blocks * kRaster);
    const int first = group * kRaster;
    const int width = min(kRaster, a.column_tiles - first);
    const int within = rest - first * a.row_blocks;
    const int block = within / width;
    return {batch, (block * kCluster + rank) * kRows, (first + within - block * width) * kColumns};
}

// ------------------------------------------------------------------------------------- producers

template <class Scheme, bool kMajorK>
SM90_INLINE void produce_stream(const CUtensorMap* map, const Args& a, uint32_t base, int rank,
                                int first, int step, int tiles) {
    using Smem = Layout<Scheme>;
    Ring<Scheme::kStreamStages> ring;
    for (int tile = first; tile < tiles; tile += step) {
        const Place at = place_of(tile, a, rank);
        const int batch = at.batch * a.stream_batched;
        for (int c = 0; c < a.chunks; ++c, ring.next()) {
            const uint32_t target = base + ring.stage * kStreamBytes;
            const uint32_t barrier = base + Smem::kStreamFull + 8 * ring.stage;
            sm90::barrier_wait(base + Smem::kStreamEmpty + 8 * ring.stage, ring.parity ^ 1);
            sm90::barrier_expect(barrier, kStreamBytes);
            if constexpr (kMajorK) {
#pragma unroll 1
                for (int b = 0; b < 2; ++b)
                    sm90::copy_box(target + b * (kStreamBytes / 2), map, c * kChunk + 32 * b, at.row,
                                   batch, barrier);
            } else {
#pragma unroll 1
                for (int b = 0; b < 4; ++b)
                    sm90::copy_box(target + b * (kStreamBytes / 4), map, at.row + 32 * b, c * kChunk,
                                   batch, barrier);
            }
        }
    }
}

template <class Scheme>
SM90_INLINE void produce_planes(const CUtensorMap* map, const Args& a, uint32_t base, int rank,
                                int first, int step, int tiles) {
    using Smem = Layout<Scheme>;
    constexpr int kShare = kColumns / kCluster;
    Ring<Scheme::kPlaneStages> ring;
    for (int tile = first; tile < tiles; tile += step) {
        const Place at = place_of(tile, a, rank);
        const int plane = at.batch * a.plane_batched * Scheme::kPlanes;
        for (int c = 0; c < a.chunks; ++c, ring.next()) {
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

// ------------------------------------------------------- fragments of S: shared float32 -> 16-bit

// Row of a warp's 16 that fragment row `g` (0..7; `g + 8` likewise) stands for. K-major: the order
// makes the eight lanes of a 16-byte access phase touch all banks of swizzled rows.
template <bool kMajorK>
SM90_INLINE int fragment_row(int g) {
    return kMajorK ? (g & 1) * 4 + (g >> 1) : g;
}

// The thread's eight values of one k16 step: v[0..3] of row g, v[4..7] of row g + 8. K-major takes
// four neighbours along K (the planes are stored in the matching order), otherwise k = 2t, 2t+1,
// 2t+8, 2t+9 as the instruction has it.
template <bool kMajorK>
struct StreamReader {
    uint32_t offset;

    SM90_INLINE StreamReader(int group, int warp, int lane) {
        const int g = lane >> 2, t = lane & 3;
        if constexpr (kMajorK) {
            const int row = group * 64 + warp * 16 + fragment_row<true>(g);
            offset = row * 128 + ((t ^ (row & 7)) << 4);
        } else {
            const int box = group * 2 + (warp >> 1);
            const int chunk = (warp & 1) * 4 + (g >> 2);
            offset = box * (kStreamBytes / 4) + 2 * t * 128 + ((chunk ^ (2 * t)) << 4) + (g & 3) * 4;
        }
    }

    SM90_INLINE void read(uint32_t stage, int step, float (&v)[8]) const {
        if constexpr (kMajorK) {
            const uint32_t at = stage + (step >> 1) * (kStreamBytes / 2) + (offset ^ ((step & 1) << 6));
            const float4 x = sm90::load_shared4(at), y = sm90::load_shared4(at + 8 * 128);
            v[0] = x.x, v[1] = x.y, v[2] = x.z, v[3] = x.w;
            v[4] = y.x, v[5] = y.y, v[6] = y.z, v[7] = y.w;
        } else {
            // k, k + 1, k + 8, k + 9; the swizzle flips bit 4 for odd k; g + 8 flips chunk bit 1.
            const uint32_t even = stage + step * 16 * 128 + offset;
            const uint32_t odd = stage + step * 16 * 128 + (offset ^ 16) + 128;
            const uint32_t at[4] = {even, odd, even + 8 * 128, odd + 8 * 128};
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                v[i] = sm90::load_shared(at[i]);
                v[4 + i] = sm90::load_shared(at[i] ^ 32);
            }
        }
    }
};

// Fragments of one chunk: term 0 is the largest.
template <class Scheme>
struct Fragments {
    uint32_t term[Scheme::kPlanes][4][4];
};

SM90_INLINE void split(float x, float y, uint32_t& hi, uint32_t& lo) {
    float hx, hy;
    hi = sm90::pack_f16(x, y);
    sm90::unpack_f16(hi, hx, hy);
    lo = sm90::pack_f16(x - hx, y - hy);
}

// Exact for 2^-110 <= |x| <= 2^127; the lower terms of an infinity or NaN are 0.
SM90_INLINE void split(float x, float y, uint32_t& hi, uint32_t& mid, uint32_t& lo) {
    float hx, hy, mx, my;
    hi = sm90::pack_bf16(x, y);
    sm90::unpack_bf16(hi, hx, hy);
    const float rx = fabsf(x) <= 3.4028235e38f ? x - hx : 0.0f;
    const float ry = fabsf(y) <= 3.4028235e38f ? y - hy : 0.0f;
    mid = sm90::pack_bf16(rx, ry);
    sm90::unpack_bf16(mid, mx, my);
    lo = sm90::pack_bf16(rx - mx, ry - my);
}

// One chunk's values of this thread, as read: [k16 step][row g: 0..3, row g + 8: 4..7].
struct Raw {
    float v[4][8];
};

template <bool kMajorK>
SM90_INLINE void load_raw(const StreamReader<kMajorK>& reader, uint32_t stage, Raw& raw) {
#pragma unroll
    for (int s = 0; s < 4; ++s) reader.read(stage, s, raw.v[s]);
}

template <class Scheme>
SM90_INLINE void convert(const Raw& raw, const float (&scale)[2], Fragments<Scheme>& f) {
#pragma unroll
    for (int s = 0; s < 4; ++s) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {  // register i: row g + 8 * (i & 1), K pair i / 2
            const int at = 4 * (i & 1) + 2 * (i >> 1);
            const float x = raw.v[s][at] * scale[i & 1], y = raw.v[s][at + 1] * scale[i & 1];
            if constexpr (Scheme::kPlanes == 2) {
                split(x, y, f.term[0][s][i], f.term[1][s][i]);
            } else {
                split(x, y, f.term[0][s][i], f.term[1][s][i], f.term[2][s][i]);
            }
        }
    }
}

// ------------------------------------------------------------------------------- products of a chunk

SM90_INLINE uint64_t step_of(uint64_t descriptor, int plane, int step) {
    return descriptor + plane * (kPlaneBytes >> 4) + step * 2;
}

// Issues part = lo*hi + hi*lo + hi*hi for the chunk, small terms first.
SM90_INLINE void issue(float (&part)[64], const Fragments<Fast>& f, uint64_t planes) {
    sm90::pin(part);
    sm90::mma_fence();
    sm90::mma_f16<false>(part, f.term[1][0], step_of(planes, 0, 0));
#pragma unroll
    for (int s = 1; s < 4; ++s) sm90::mma_f16<true>(part, f.term[1][s], step_of(planes, 0, s));
#pragma unroll
    for (int s = 0; s < 4; ++s) sm90::mma_f16<true>(part, f.term[0][s], step_of(planes, 1, s));
#pragma unroll
    for (int s = 0; s < 4; ++s) sm90::mma_f16<true>(part, f.term[0][s], step_of(planes, 0, s));
    sm90::mma_commit();
}

// The five corrections of the six-product scheme: lo*hi, mid*mid, hi*lo, mid*hi, hi*mid.
SM90_INLINE void issue_corrections(float (&part)[64], const Fragments<Safe>& f, uint64_t planes) {
    sm90::pin(part);
    sm90::mma_fence();
    sm90::mma_bf16<false>(part, f.term[2][0], step_of(planes, 0, 0));
#pragma unroll
    for (int s = 1; s < 4; ++s) sm90::mma_bf16<true>(part, f.term[2][s], step_of(planes, 0, s));
#pragma unroll
    for (int s = 0; s < 4; ++s) sm90::mma_bf16<true>(part, f.term[1][s], step_of(planes, 1, s));
#pragma unroll
    for (int s = 0; s < 4; ++s) sm90::mma_bf16<true>(part, f.term[0][s], step_of(planes, 2, s));
#pragma unroll
    for (int s = 0; s < 4; ++s) sm90::mma_bf16<true>(part, f.term[1][s], step_of(planes, 0, s));
#pragma unroll
    for (int s = 0; s < 4; ++s) sm90::mma_bf16<true>(part, f.term[0][s], step_of(planes, 1, s));
    sm90::mma_commit();
}

SM90_INLINE void issue_leading(float (&part)[64], const Fragments<Safe>& f, uint64_t planes) {
    sm90::pin(part);
    sm90::mma_fence();
    sm90::mma_bf16<false>(part, f.term[0][0], step_of(planes, 0, 0));
#pragma unroll
    for (int s = 1; s < 4; ++s) sm90::mma_bf16<true>(part, f.term[0][s], step_of(planes, 0, s));
    sm90::mma_commit();
}

SM90_INLINE void promote(float (&sum)[64], float (&part)[64]) {
    sm90::mma_wait<0>();
    sm90::pin(part);
#pragma unroll
    for (int i = 0; i < 64; ++i) sum[i] += part[i];
}

// As above; a correction that is not finite says nothing (infinity times a lower term), hi*hi does.
SM90_INLINE void promote_finite(float (&sum)[64], float (&part)[64]) {
    sm90::mma_wait<0>();
    sm90::pin(part);
#pragma unroll
    for (int i = 0; i < 64; ++i) sum[i] += fabsf(part[i]) <= 3.4028235e38f ? part[i] : 0.0f;
}

// ------------------------------------------------------------------------------------- consumers

// Where a consumer thread stands, and its hold on both rings.
template <class Scheme, bool kMajorK>
struct Consumer {
    using Smem = Layout<Scheme>;
    uint32_t base;
    StreamReader<kMajorK> reader;
    Ring<Scheme::kStreamStages> stream_ring;
    Ring<Scheme::kPlaneStages> plane_ring;
    int lane;
    int ready;        // stage of S that `load` reads
    int stream_held;  // oldest stages not yet released
    int plane_held;

    SM90_INLINE void wait_stream() {
        sm90::barrier_wait(base + Smem::kStreamFull + 8 * stream_ring.stage, stream_ring.parity);
        ready = stream_ring.stage;
        stream_ring.next();
    }

    SM90_INLINE void load(Raw& raw) const { load_raw(reader, base + ready * kStreamBytes, raw); }

    // Frees the oldest stage held. Only behind a wait for products issued after its `load`: the reads
    // are then certainly over, wherever the compiler has put the uses of what they return.
    SM90_INLINE void release_stream() {
        __syncwarp();
        if (lane == 0) sm90::barrier_arrive(base + Smem::kStreamEmpty + 8 * stream_held);
        stream_held = stream_held + 1 == Scheme::kStreamStages ? 0 : stream_held + 1;
    }

    // Descriptor of the next tile of P, once it has arrived.
    SM90_INLINE uint64_t wait_planes() {
        sm90::barrier_wait(base + Smem::kPlaneFull + 8 * plane_ring.stage, plane_ring.parity);
        const uint32_t stage = base + Smem::kPlanesAt + plane_ring.stage * Smem::kPlaneStage;
        plane_ring.next();
        return sm90::operand_descriptor(stage);
    }

    // The tile of P is shared: tell the producers of both CTAs.
    SM90_INLINE void release_planes() {
        if (lane < kCluster)
            sm90::barrier_arrive_at(base + Smem::kPlaneEmpty + 8 * plane_held, lane);
        plane_held = plane_held + 1 == Scheme::kPlaneStages ? 0 : plane_held + 1;
    }
};

// One step of `multiply`: products of chunk `now`, whose planes have arrived, while chunk `next` is
// read and converted. With nothing left, `next` is garbage that nobody uses: straight-line code keeps
// the registers in place. The two waits inside are early, and they keep the assembler, which schedules
// between branches, from moving the conversion out of the shadow of the products.
template <bool kMajorK>
SM90_INLINE uint64_t advance(Consumer<Fast, kMajorK>& me, uint64_t planes, const Fragments<Fast>& now,
                             Fragments<Fast>& next, int left, bool first, const float (&scale)[2],
                             float (&sum)[64], float (&part)[64]) {
    Raw raw;
    me.load(raw);
    issue(part, now, planes);
    if (left > 2) me.wait_stream();
#pragma unroll
    for (int s = 0; s < 4; ++s) sm90::pin(raw.v[s]);
    convert(raw, scale, next);
    if (left > 1) planes = me.wait_planes();
    promote(sum, part);
    me.release_planes();
    if (first) me.release_stream();
    if (left > 1) me.release_stream();
    return planes;
}

// sum += the tile's product.
template <bool kMajorK>
SM90_INLINE void multiply(Consumer<Fast, kMajorK>& me, int chunks, const float (&scale)[2],
                          float (&sum)[64]) {
    float part[64];
    Fragments<Fast> even, odd;
    Raw raw;
    me.wait_stream();
    me.load(raw);
    convert(raw, scale, even);
    if (chunks > 1) me.wait_stream();
    uint64_t planes = me.wait_planes();
    for (int left = chunks; left > 0; left -= 2) {
        planes = advance(me, planes, even, odd, left, left == chunks, scale, sum, part);
        if (left == 1) break;
        planes = advance(me, planes, odd, even, left - 1, false, scale, sum, part);
    }
}

template <bool kMajorK>
SM90_INLINE void multiply(Consumer<Safe, kMajorK>& me, int chunks, const float (&scale)[2],
                          float (&sum)[64]) {
    float part[64];
    Fragments<Safe> f;
    for (int c = 0; c < chunks; ++c) {
        Raw raw;
        me.wait_stream();
        me.load(raw);
        convert(raw, scale, f);
        const uint64_t planes = me.wait_planes();
        issue_corrections(part, f, planes);
        promote_finite(sum, part);
        me.release_stream();
        issue_leading(part, f, planes);
        promote(sum, part);
        me.release_planes();
    }
}

// Exponent h by which a streamed row is scaled. Safe needs it only to stay below the value that rounds
// to infinity in bf16, and to lift tiny rows out of the range where the third term would vanish.
template <class Scheme>
SM90_INLINE int stream_shift(int exponent) {
    if constexpr (Scheme::kPlanes == 2) return min(max(kStreamTarget - exponent, -126), 126);
    return exponent < -80 ? 40 : -2;
}

SM90_INLINE float sum_over_quad(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

// Raises the flag if what fp16 lost could matter in this part of a row (see the top of the file).
// Columns are weighted by their true scale, relative to the largest of the tile.
SM90_INLINE void guard(const float (&sum)[64], const PlaneStat* stat, const bool (&relevant)[2],
                       int* flag) {
    int top = -1000;
#pragma unroll 4
    for (int q = 0; q < 16; ++q) top = max(top, max(stat[8 * q].exponent, stat[8 * q + 1].exponent));
    top = max(top, __shfl_xor_sync(0xffffffffu, top, 1));
    top = max(top, __shfl_xor_sync(0xffffffffu, top, 2));
    float bound = 0.0f, size[2] = {0.0f, 0.0f};
#pragma unroll
    for (int q = 0; q < 16; ++q) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            const PlaneStat s = stat[8 * q + e];
            const float weight = sm90::power_of_two(max(s.exponent - top, -126));
            const float error = s.bound * weight;
            bound += error * error;
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                const float value = sum[4 * q + 2 * r + e] * weight;
                size[r] += value * value;
            }
        }
    }
    bound = sum_over_quad(bound);
    bool fine = true;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const float v = sum_over_quad(size[r]);
        // (2^-25 bound)^2 <= 2^-46 value^2; an infinity or NaN on either side fails.
        fine = fine && (bound <= 16.0f * v || !relevant[r]) && v <= 1e38f;
    }
    if (!fine) *flag = 1;  // every writer writes the same
}

// -------------------------------------------------------------------------------------- epilogue

// Calls the hole for every element of the thread's part of the tile and folds its values.
//
// The hole, a struct passed by value:
//   static constexpr bool kSwapped;       // D[i, j] is C[j, i]
//   static constexpr int kPartialWords;   // 0: no fold
//   static constexpr bool kFoldsOverN;    // else over M
//   __device__ float apply(int batch, int m, int n, float acc) const;   // stores; returns the value
//   __device__ static void partial_identity(float* p);
//   __device__ static void partial_add(float* p, float value);
//   __device__ static void partial_merge(float* p, const float* q);
template <class Epilogue>
struct Finish {
    static constexpr int kWords = Epilogue::kPartialWords == 0 ? 1 : Epilogue::kPartialWords;
    static constexpr bool kFoldsRows = Epilogue::kFoldsOverN == Epilogue::kSwapped;

    SM90_INLINE static float apply(const Epilogue& hole, int batch, int i, int j, float v) {
        return Epilogue::kSwapped ? hole.apply(batch, j, i, v) : hole.apply(batch, i, j, v);
    }

    SM90_INLINE static void merge_lanes(float (&p)[kWords], int distance) {
        float other[kWords];
#pragma unroll
        for (int w = 0; w < kWords; ++w) other[w] = __shfl_xor_sync(0xffffffffu, p[w], distance);
        Epilogue::partial_merge(p, other);
    }

    SM90_INLINE static void put(const Args& a, int batch, int slab, int index, const float (&p)[kWords]) {
        float* target = a.partial + (int64_t(batch) * a.partial_slabs + slab) * kWords * a.partial_extent;
#pragma unroll
        for (int w = 0; w < kWords; ++w) target[int64_t(w) * a.partial_extent + index] = p[w];
    }

    // `rows`: the thread's two rows of D; `column`: its first column (then +1, +8, +9, ...).
    SM90_INLINE static void run(const Args& a, const Epilogue& hole, int batch, const int (&rows)[2],
                                int first_row, int column, int lane, const float (&value)[64]) {
        float across[2][kWords];
        if constexpr (Epilogue::kPartialWords > 0 && !kFoldsRows) {
            Epilogue::partial_identity(across[0]);
            Epilogue::partial_identity(across[1]);
        }
#pragma unroll
        for (int q = 0; q < 16; ++q) {
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                const int j = column + 8 * q + e;
                float down[kWords];
                if constexpr (Epilogue::kPartialWords > 0 && kFoldsRows)
                    Epilogue::partial_identity(down);
#pragma unroll
                for (int r = 0; r < 2; ++r) {
                    if (rows[r] >= a.rows || j >= a.columns) continue;
                    const float v = apply(hole, batch, rows[r], j, value[4 * q + 2 * r + e]);
                    if constexpr (Epilogue::kPartialWords > 0)
                        Epilogue::partial_add(kFoldsRows ? down : across[r], v);
                }
                if constexpr (Epilogue::kPartialWords > 0 && kFoldsRows) {
                    merge_lanes(down, 4);
                    merge_lanes(down, 8);
                    merge_lanes(down, 16);
                    if (lane < 4 && j < a.columns && first_row < a.rows)
                        put(a, batch, first_row / kFoldRows, j, down);
                }
            }
        }
        if constexpr (Epilogue::kPartialWords > 0 && !kFoldsRows) {
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                merge_lanes(across[r], 1);
                merge_lanes(across[r], 2);
                if ((lane & 3) == 0 && rows[r] < a.rows)
                    put(a, batch, column / kColumns, rows[r], across[r]);
            }
        }
    }
};

template <class Scheme, bool kMajorK, class Epilogue>
SM90_INLINE void consume(const Args& a, const Epilogue& hole, Consumer<Scheme, kMajorK>& me, int group,
                         int warp, int rank, int first, int step, int tiles) {
    for (int tile = first; tile < tiles; tile += step) {
        const Place at = place_of(tile, a, rank);
        const int first_row = at.row + group * 64 + warp * 16;
        const int row = first_row + fragment_row<kMajorK>(me.lane >> 2);
        const int rows[2] = {row, row + 8};
        const int* exponents = a.stream_exponent + int64_t(at.batch) * a.stream_batched * a.rows;
        int shift[2];
        bool relevant[2];  // a row of zeros has no rounding to guard against
        float scale[2], sum[64];
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const int exponent = rows[r] < a.rows ? exponents[rows[r]] : kZeroRow;
            relevant[r] = exponent != kZeroRow;
            shift[r] = stream_shift<Scheme>(exponent);
            scale[r] = sm90::power_of_two(shift[r]);
        }
#pragma unroll
        for (int i = 0; i < 64; ++i) sum[i] = 0.0f;
        multiply(me, a.chunks, scale, sum);

        const int column = at.column + 2 * (me.lane & 3);
        const PlaneStat* stat =
            a.plane_stat + int64_t(at.batch) * a.plane_batched * a.padded_columns + column;
        if constexpr (Scheme::kPlanes == 2) guard(sum, stat, relevant, a.flag);
#pragma unroll
        for (int i = 0; i < 64; ++i) {
            const int exponent = stat[8 * (i >> 2) + (i & 1)].exponent - shift[(i >> 1) & 1];
            sum[i] = sm90::scale_by(sum[i], exponent);
        }
        Finish<Epilogue>::run(a, hole, at.batch, rows, first_row, column, me.lane, sum);
    }
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
    const int tiles = a.batches * a.row_blocks * a.column_tiles;

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
            produce_stream<Scheme, kMajorK>(&stream_map, a, base, rank, first, step, tiles);
        if (warp == 1 && lane == 0)
            produce_planes<Scheme>(&plane_map, a, base, rank, first, step, tiles);
    } else {
        sm90::registers_acquire<232>();
        const int group = (warp >> 2) - 1;
        Consumer<Scheme, kMajorK> me = {
            base, StreamReader<kMajorK>(group, warp & 3, lane), {}, {}, lane, 0, 0, 0};
        consume(a, hole, me, group, warp & 3, rank, first, step, tiles);
    }
    __syncwarp();
    sm90::cluster_sync();  // no CTA leaves while its peer may still write to it
}

}  // namespace gemm90
