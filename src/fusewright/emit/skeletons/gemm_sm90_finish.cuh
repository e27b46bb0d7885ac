// What happens to a finished tile: the guard of the fp16 scheme and the typed holes.
#pragma once
#include "gemm_sm90_config.cuh"

namespace gemm90 {

// ----------------------------------------------------------------------------------------- guard

// The 32 columns of this thread: pairs 8q, 8q + 1.
struct ColumnStats {
    int exponent[32];
    float bound[32];

    SM90_INLINE explicit ColumnStats(const PlaneStat* stat) {
#pragma unroll
        for (int q = 0; q < 16; ++q) {
            const int4 v = *reinterpret_cast<const int4*>(stat + 8 * q);
            exponent[2 * q] = v.x, bound[2 * q] = __int_as_float(v.y);
            exponent[2 * q + 1] = v.z, bound[2 * q + 1] = __int_as_float(v.w);
        }
    }

    SM90_INLINE int top() const {
        int e = exponent[0];
#pragma unroll
        for (int j = 1; j < 32; ++j) e = max(e, exponent[j]);
        return e;
    }

    SM90_INLINE int bottom() const {
        int e = exponent[0];
#pragma unroll
        for (int j = 1; j < 32; ++j) e = min(e, exponent[j]);
        return e;
    }
};

template <class T, class Combine>
SM90_INLINE T combine_warp(T v, Combine combine) {
#pragma unroll
    for (int d = 16; d > 0; d >>= 1) v = combine(v, __shfl_xor_sync(0xffffffffu, v, d));
    return v;
}

struct Larger {
    template <class T>
    SM90_INLINE T operator()(T a, T b) const {
        return max(a, b);
    }
};
struct Plus {
    SM90_INLINE float operator()(float a, float b) const { return a + b; }
};

// What a warp's 16 rows of a tile say about their own accuracy (see the top of the file): the sums of
// squares of the thread's results and of their bounds, columns weighted by their true scales relative
// to the largest of the tile.
struct Evidence {
    float bound, size[2];

    SM90_INLINE void add_column(float bound_of_column, float weight) {
        const float error = bound_of_column * weight;
        bound += error * error;
    }

    // Raises the flag if what fp16 lost could matter. Rows are weighted like columns.
    SM90_INLINE void judge(const int (&shift)[2], const bool (&relevant)[2], int* flag) const {
        int row_top = -1000;
#pragma unroll
        for (int r = 0; r < 2; ++r) row_top = max(row_top, relevant[r] ? -shift[r] : -1000);
        row_top = combine_warp(row_top, Larger());
        float total_bound = 0.0f, total_size = 0.0f;
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const float w = sm90::power_of_two(min(max(-shift[r] - row_top, -126), 0));
            total_bound += relevant[r] ? bound * w * w : 0.0f;
            total_size += relevant[r] ? size[r] * w * w : 0.0f;
        }
        total_bound = combine_warp(total_bound, Plus());
        total_size = combine_warp(total_size, Plus());
        // (2^-25 bound)^2 <= 2^-46 size; an infinity or NaN on either side fails, also in a row that
        // the samples called zero.
        const bool finite = size[0] <= 1e38f && size[1] <= 1e38f;
        if (!finite || !(total_bound <= 16.0f * total_size)) *flag = 1;  // all write the same
    }
};

// Brings results to their true scale and, with kGuard, judges them; exact for any scales. `stats`: of
// the thread's first column; `top`: the largest exponent of the warp's columns.
template <bool kGuard, int kSums>
SM90_INLINE void unscale_apart(float (&sum)[kSums], const PlaneStat* stats, int top,
                               const int (&shift)[2], const bool (&relevant)[2], int* flag) {
    Evidence seen = {0.0f, {0.0f, 0.0f}};
#pragma unroll
    for (int i = 0; i < kSums; i += 2) {
        const PlaneStat stat = stats[8 * (i >> 2) + (i >> 1 & 1)];
        const float weight = sm90::power_of_two(max(stat.exponent - top, -126));
        if (kGuard) seen.add_column(stat.bound, weight);
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            float& result = sum[(i & ~3) + 2 * r + (i >> 1 & 1)];
            const float value = result * weight;
            if (kGuard) seen.size[r] += value * value;
            result = sm90::scale_by(result, stat.exponent - shift[r]);
        }
    }
    if (kGuard) seen.judge(shift, relevant, flag);
}

// The same. Where the tile's scales are close to one another, which is the rule, three operations per
// result do both.
template <bool kGuard>
SM90_INLINE void unscale(float (&sum)[64], const PlaneStat* stats, const int (&shift)[2],
                         const bool (&relevant)[2], int* flag) {
    const ColumnStats stat(stats);
    const int top = combine_warp(stat.top(), Larger());
    bool close = top - stat.bottom() <= 60;
#pragma unroll
    for (int r = 0; r < 2; ++r) close = close && (!relevant[r] || abs(top - shift[r]) <= 120);
    if (!__all_sync(0xffffffffu, close)) {
        unscale_apart<kGuard>(sum, stats, top, shift, relevant, flag);
        return;
    }
    Evidence seen = {0.0f, {0.0f, 0.0f}};
    float back[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) back[r] = sm90::power_of_two(min(max(top - shift[r], -120), 120));
#pragma unroll
    for (int j = 0; j < 32; ++j) {
        const float weight = sm90::power_of_two(stat.exponent[j] - top);
        if (kGuard) seen.add_column(stat.bound[j], weight);
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            float& result = sum[4 * (j >> 1) + 2 * r + (j & 1)];
            const float value = result * weight;
            if (kGuard) seen.size[r] += value * value;
            result = value * back[r];
        }
    }
    if (kGuard) seen.judge(shift, relevant, flag);
}

// -------------------------------------------------------------------------------------- epilogue

// Calls the hole for every element of the thread's part of the tile and merges what it folds.
//
// The hole, a struct passed by value:
//   static constexpr bool kSwapped;       // D[i, j] is C[j, i]
//   static constexpr int kPartialWords;   // 0: no fold
//   static constexpr bool kFoldsOverN;    // else over M
//   static constexpr int kSlices;         // of K, each a cluster's work (at most one per 64)
//   static constexpr bool kMapsStream, kMapsPlanes;   // an operand is what the hole makes of memory:
//   __device__ float stream(int batch, int row, int k, float x) const;   // S[row, k] of what is there
//   __device__ float planes(int batch, int row, int k) const;            // P[row, k]
//   static constexpr bool kWholeStream;   // rows and K of S are multiples of 256 and 64
//   static constexpr int kDepth;          // K; 0: not known when this is compiled
//   static constexpr Division kDivision;  // see prepare_kernel
//   static constexpr bool kWhole;         // rows of D are multiples of 256, columns of 128
//   __device__ void apply(int batch, int m, int n, float acc, float* p) const;   // stores; adds to p
//   // only with a fold:
//   __device__ void element(int batch, int m, int n, float acc, float* p) const;   // stores; sets p to
//                                                                           what apply would add
//   __device__ static void partial_identity(float* p);
//   __device__ static void partial_merge(float* p, const float* q);
//   __device__ void finish(int batch, int index, const float* p) const;
// `apply` sees each valid (m, n) once, in no order; lanes of a warp hold eight neighbouring n (kSwapped)
// or n, n + 2, n + 4, n + 6 of eight rows (not kSwapped): stores of the first kind fill whole sectors.
template <class Epilogue>
struct Finish {
    static constexpr int kWords = Epilogue::kPartialWords == 0 ? 1 : Epilogue::kPartialWords;
    static constexpr bool kFoldsRows = Epilogue::kFoldsOverN == Epilogue::kSwapped;

    SM90_INLINE static void apply(const Epilogue& hole, int batch, int i, int j, float v, float* p) {
        Epilogue::kSwapped ? hole.apply(batch, j, i, v, p) : hole.apply(batch, i, j, v, p);
    }

    SM90_INLINE static void element(const Epilogue& hole, int batch, int i, int j, float v, float* p) {
        Epilogue::kSwapped ? hole.element(batch, j, i, v, p) : hole.element(batch, i, j, v, p);
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

    // `rows`: the thread's two rows of D; `column`: its first column (then +1, +8, +9, ...). With
    // kWhole a tile within the bounds is recognised and needs no checks.
    template <bool kWhole>
    SM90_INLINE static void run(const Args& a, const Epilogue& hole, int batch, const int (&rows)[2],
                                int first_row, int column, int lane, const float (&value)[64]) {
        const bool inside = (first_row | 15) < a.rows && (column | (kColumns - 1)) < a.columns;
        if constexpr (Epilogue::kWhole) {
            visit<false>(a, hole, batch, rows, first_row, column, lane, value);
        } else if (kWhole && __all_sync(0xffffffffu, inside)) {
            visit<false>(a, hole, batch, rows, first_row, column, lane, value);
        } else {
            visit<true>(a, hole, batch, rows, first_row, column, lane, value);
        }
    }

    template <bool kChecked>
    SM90_INLINE static void visit(const Args& a, const Epilogue& hole, int batch, const int (&rows)[2],
                                  int first_row, int column, int lane, const float (&value)[64]) {
        if constexpr (Epilogue::kPartialWords > 0 && kFoldsRows) {
#pragma unroll
            for (int part = 0; part < 4; ++part)
                fold_rows<kChecked>(a, hole, batch, rows, first_row, column + 32 * part, lane,
                                    value + 16 * part);
            return;
        }
        float across[2][kWords];
        if constexpr (Epilogue::kPartialWords > 0) {
            Epilogue::partial_identity(across[0]);
            Epilogue::partial_identity(across[1]);
        }
#pragma unroll
        for (int i = 0; i < 64; ++i) {
            const int j = column + 8 * (i >> 2) + (i & 1), r = i >> 1 & 1;
            if (kChecked && (rows[r] >= a.rows || j >= a.columns)) continue;
            apply(hole, batch, rows[r], j, value[i], across[r]);
        }
        if constexpr (Epilogue::kPartialWords > 0) {
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                merge_lanes(across[r], 1);
                merge_lanes(across[r], 2);
                if ((lane & 3) == 0 && rows[r] < a.rows)
                    put(a, batch, column / kColumns, rows[r], across[r]);
            }
        }
    }

    // Folds the warp's 16 rows of 32 columns. Eight lanes share eight columns: in each of three rounds
    // a lane hands half of its columns to another and takes over the rest, down to one.
    template <bool kChecked>
    SM90_INLINE static void fold_rows(const Args& a, const Epilogue& hole, int batch,
                                      const int (&rows)[2], int first_row, int column, int lane,
                                      const float* value) {
        float p[8][kWords];
#pragma unroll
        for (int c = 0; c < 8; ++c) {
            const int j = column + 8 * (c >> 1) + (c & 1);
            if (kChecked) Epilogue::partial_identity(p[c]);
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                const float v = value[4 * (c >> 1) + 2 * r + (c & 1)];
                if (kChecked) {
                    if (rows[r] < a.rows && j < a.columns) apply(hole, batch, rows[r], j, v, p[c]);
                } else {
                    float q[kWords];
                    element(hole, batch, rows[r], j, v, r == 0 ? p[c] : q);
                    if (r == 1) Epilogue::partial_merge(p[c], q);
                }
            }
        }
        hand_over<4>(p, lane & 16, 16);
        hand_over<2>(p, lane & 8, 8);
        hand_over<1>(p, lane & 4, 4);
        const int j = column + (lane & 16 ? 16 : 0) + (lane & 8) + (lane & 4 ? 1 : 0);
        if (!kChecked || (j < a.columns && first_row < a.rows))
            put(a, batch, first_row / kFoldRows, j, p[0]);
    }

    // Of 2 * kKept columns a lane keeps the upper or the lower half, merged with its partner's.
    template <int kKept>
    SM90_INLINE static void hand_over(float (&p)[8][kWords], bool upper, int distance) {
#pragma unroll
        for (int c = 0; c < kKept; ++c) {
            float other[kWords];
#pragma unroll
            for (int w = 0; w < kWords; ++w) {
                const float low = p[c][w], high = p[c + kKept][w];
                other[w] = __shfl_xor_sync(0xffffffffu, upper ? low : high, distance);
                p[c][w] = upper ? high : low;
            }
            Epilogue::partial_merge(p[c], other);
        }
    }
};

}  // namespace gemm90
