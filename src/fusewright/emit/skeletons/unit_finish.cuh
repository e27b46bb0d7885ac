// The typed hole of products whose sums are handed over through shared memory, unit by unit.
#pragma once
#include "raster.cuh"

namespace tiles {

// Calls the hole for the elements of a unit (Unit::kRows x Unit::kColumns) and folds their values.
//
// The hole, a struct passed by value:
//   using Value = ...;                    // of kValueBytes: how `apply` sees the sums
//   static constexpr int kRun;            // 1, 2, 4 or 8: divides the number of columns
//   static constexpr int kPartialWords;   // 0: no fold
//   static constexpr bool kFoldsOverN;    // else over M
//   // stores what follows from the sums of columns n + v, v < kRun; merges what is folded of them
//   // into p (over N) or p + v * kPartialWords (over M)
//   __device__ void apply(int batch, int m, int n, const Value (&acc)[kRun], float* p) const;
//   // only with a fold:
//   __device__ static void partial_identity(float* p);
//   __device__ static void partial_merge(float* p, const float* q);
//   __device__ void finish(int batch, int index, const float* p) const;
// `apply` sees each valid element once, in no order; the lanes of a warp hold neighbouring runs.
template <class Unit, class Epilogue>
struct Finish {
    using Value = typename Epilogue::Value;
    static constexpr int kRun = Epilogue::kRun;
    static constexpr int kWords = Epilogue::kPartialWords == 0 ? 1 : Epilogue::kPartialWords;
    static constexpr bool kFolds = Epilogue::kPartialWords > 0;
    static constexpr bool kOverN = Epilogue::kFoldsOverN;
    // Lanes that share a row.
    static constexpr int kLanes = Unit::kColumns / kRun < 32 ? Unit::kColumns / kRun : 32;
    static constexpr int kWidth = kLanes * kRun;  // columns that share one partial result
    static_assert(sizeof(Value) == Unit::kValueBytes, "the hole sees what is handed over");

    struct alignas(kRun * sizeof(Value) < 16 ? kRun * sizeof(Value) : 16) Run {
        Value at[kRun];
    };

    // Merges lanes first, 2 * first, ... below `last` apart.
    TILES_INLINE static void merge_lanes(float (&p)[kWords], int first, int last) {
#pragma unroll
        for (int d = first; d < last; d *= 2) {
            float other[kWords];
#pragma unroll
            for (int w = 0; w < kWords; ++w) other[w] = __shfl_xor_sync(0xffffffffu, p[w], d);
            Epilogue::partial_merge(p, other);
        }
    }

    template <class Args>
    TILES_INLINE static void put(const Args& a, int batch, int slab, int index, const float (&p)[kWords]) {
        float* target = a.partial + (int64_t(batch) * a.partial_slabs + slab) * kWords * a.partial_extent;
#pragma unroll
        for (int w = 0; w < kWords; ++w) target[int64_t(w) * a.partial_extent + index] = p[w];
    }

    // The unit whose first element is (row, column) of D and (first_row, 0) of the slab.
    template <class Args>
    TILES_INLINE static void run(const Args& a, const Epilogue& hole, int batch, int row, int column,
                                 const uint8_t* slab, int first_row, int lane) {
        const int across = lane % kLanes * kRun, down = lane / kLanes;
#pragma unroll 1
        for (int j = across; j < Unit::kColumns; j += kWidth) {
            const int n = column + j;
            const bool live = n < a.columns;
            float kept[kRun][kWords];  // of a fold over M
            if constexpr (kFolds && !kOverN)
#pragma unroll
                for (int v = 0; v < kRun; ++v) Epilogue::partial_identity(kept[v]);
#pragma unroll 2
            for (int r = down; r < Unit::kRows; r += 32 / kLanes) {
                float total[kWords];  // of a fold over N
                if constexpr (kFolds && kOverN) Epilogue::partial_identity(total);
                if (live && row + r < a.rows) {
                    const Run sums =
                        *reinterpret_cast<const Run*>(slab + Unit::offset(first_row + r, j));
                    hole.apply(batch, row + r, n, sums.at, kOverN ? total : kept[0]);
                }
                if constexpr (kFolds && kOverN) {
                    merge_lanes(total, 1, kLanes);
                    if (across == 0 && row + r < a.rows)
                        put(a, batch, (column + j) / kWidth, row + r, total);
                }
            }
            if constexpr (kFolds && !kOverN)
#pragma unroll
                for (int v = 0; v < kRun; ++v) {
                    merge_lanes(kept[v], kLanes, 32);
                    if (down == 0 && live && row < a.rows)
                        put(a, batch, row / Unit::kRows, n + v, kept[v]);
                }
        }
    }
};

}  // namespace tiles
