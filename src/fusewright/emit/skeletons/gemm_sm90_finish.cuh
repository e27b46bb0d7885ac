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

// Raises the flag if what fp16 lost could matter in the warp's 16 x 128 results (see the top of the
// file). Rows and columns are weighted by their true scales, relative to the largest of the tile.
SM90_INLINE void guard(const float (&sum)[64], const ColumnStats& stat, const int (&shift)[2],
                       const bool (&relevant)[2], int* flag) {
    int top = -1000, row_top = -1000;
#pragma unroll
    for (int j = 0; j < 32; ++j) top = max(top, stat.exponent[j]);
#pragma unroll
    for (int r = 0; r < 2; ++r) row_top = max(row_top, relevant[r] ? -shift[r] : -1000);
    top = combine_warp(top, Larger());
    row_top = combine_warp(row_top, Larger());
    float bound = 0.0f, size[2] = {0.0f, 0.0f};
#pragma unroll
    for (int j = 0; j < 32; ++j) {
        const float weight = sm90::power_of_two(max(stat.exponent[j] - top, -126));
        const float error = stat.bound[j] * weight;
        bound += error * error;
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const float value = sum[4 * (j >> 1) + 2 * r + (j & 1)] * weight;
            size[r] += value * value;
        }
    }
    float total_bound = 0.0f, total_size = 0.0f;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const float w = sm90::power_of_two(min(max(-shift[r] - row_top, -126), 0));
        total_bound += relevant[r] ? bound * w * w : 0.0f;
        total_size += relevant[r] ? size[r] * w * w : 0.0f;
    }
    total_bound = combine_warp(total_bound, Plus());
    total_size = combine_warp(total_size, Plus());
    // (2^-25 bound)^2 <= 2^-46 size; an infinity or NaN on either side fails, also in a row that the
    // samples called zero.
    const bool finite = size[0] <= 1e38f && size[1] <= 1e38f;
    if (!finite || !(total_bound <= 16.0f * total_size)) *flag = 1;  // every writer writes the same
}

// -------------------------------------------------------------------------------------- epilogue

// Calls the hole for every element of the thread's part of the tile and merges what it folds.
//
// The hole, a struct passed by value:
//   static constexpr bool kSwapped;       // D[i, j] is C[j, i]
//   static constexpr int kPartialWords;   // 0: no fold
//   static constexpr bool kFoldsOverN;    // else over M
//   __device__ void apply(int batch, int m, int n, float acc, float* p) const;   // stores; adds to p
//   __device__ static void partial_identity(float* p);
//   __device__ static void partial_merge(float* p, const float* q);
//   __device__ void finish(int batch, int index, const float* p) const;   // only with a fold
// `apply` sees each valid (m, n) once, in no order; lanes of a warp hold eight neighbouring n (kSwapped)
// or n, n + 2, n + 4, n + 6 of eight rows (not kSwapped): stores of the first kind fill whole sectors.
template <class Epilogue>
struct Finish {
    static constexpr int kWords = Epilogue::kPartialWords == 0 ? 1 : Epilogue::kPartialWords;
    static constexpr bool kFoldsRows = Epilogue::kFoldsOverN == Epilogue::kSwapped;

    SM90_INLINE static void apply(const Epilogue& hole, int batch, int i, int j, float v, float* p) {
        Epilogue::kSwapped ? hole.apply(batch, j, i, v, p) : hole.apply(batch, i, j, v, p);
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
                    apply(hole, batch, rows[r], j, value[4 * q + 2 * r + e],
                          kFoldsRows ? down : across[r]);
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

}  // namespace gemm90
