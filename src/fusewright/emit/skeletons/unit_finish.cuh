// The typed hole of products whose sums are handed over through shared memory, unit by unit.
#pragma once
#include "raster.cuh"

namespace tiles {

// Columns of D that lie side by side, from `first` on; `column` below: the number of a unit's column.
struct Columns {
    int first, columns;
    TILES_INLINE int at(int column) const { return first + column; }
    TILES_INLINE bool live(int column) const { return at(column) < columns; }
    // Of the partial results over N, `width` columns each.
    TILES_INLINE int slab(int column, int width) const { return at(column) / width; }
};

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
//
// Where kPhases neighbouring rows alternate along the columns of what the hole stores, it may take them
// at once: a static member kPhases, which divides kRun and a unit's rows, and no fold. To `apply` the
// rows are then one, kPhases times as long: it gets their number and their columns', acc[v] being of
// row m * kPhases + v % kPhases and column (n + v) / kPhases of D.
template <class E>
constexpr int phases_of(decltype(E::kPhases)*) {
    return E::kPhases;
}
template <class E>
constexpr int phases_of(...) {
    return 1;
}

template <class Unit, class Epilogue>
struct Finish {
    using Value = typename Epilogue::Value;
    static constexpr int kPhases = phases_of<Epilogue>(nullptr);
    static constexpr int kRun = Epilogue::kRun / kPhases;  // in a row of D
    static constexpr int kWords = Epilogue::kPartialWords == 0 ? 1 : Epilogue::kPartialWords;
    static constexpr bool kFolds = Epilogue::kPartialWords > 0;
    static constexpr bool kOverN = Epilogue::kFoldsOverN;
    // Lanes that share a row.
    static constexpr int kLanes = Unit::kColumns / kRun < 32 ? Unit::kColumns / kRun : 32;
    static constexpr int kWidth = kLanes * kRun;  // columns that share one partial result
    static_assert(sizeof(Value) == Unit::kValueBytes, "the hole sees what is handed over");
    static_assert(Unit::kRows % kPhases == 0 && (kPhases == 1 || !kFolds), "whole rows of the hole");

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

    // A lane's runs: kAcross of them in a row, kWidth columns apart, and every kDown-th row, with the
    // kPhases - 1 rows below it.
    static constexpr int kDown = 32 / kLanes * kPhases, kAcross = Unit::kColumns / kWidth;
    // kCount of the runs across. `n` and `live` are theirs, `kept` what a fold over M makes of them.
    template <int kCount>
    struct Runs {
        int first;  // column in the unit
        int n[kCount];
        bool live[kCount];
        float kept[kCount][kRun][kWords];
    };
    template <int kCount, class Where>
    TILES_INLINE static Runs<kCount> runs_of(const Where& columns, int first) {
        Runs<kCount> x;
        x.first = first;
#pragma unroll
        for (int j = 0; j < kCount; ++j) {
            x.n[j] = columns.at(first + j * kWidth);
            x.live[j] = columns.live(first + j * kWidth);
            if constexpr (kFolds && !kOverN)
#pragma unroll
                for (int v = 0; v < kRun; ++v) Epilogue::partial_identity(x.kept[j][v]);
        }
        return x;
    }

    // The hole for a run of the rows from `row` on.
    TILES_INLINE static void apply(const Epilogue& hole, int batch, int row, int n,
                                   const Run (&sums)[kPhases], float* p) {
        if constexpr (kPhases == 1) {
            hole.apply(batch, row, n, sums[0].at, p);
        } else {
            Value beside[Epilogue::kRun];
#pragma unroll
            for (int v = 0; v < Epilogue::kRun; ++v) beside[v] = sums[v % kPhases].at[v / kPhases];
            hole.apply(batch, row / kPhases, n * kPhases, beside, p);
        }
    }

    // The runs in kRows rows from `r` on, where they are `live`. Nothing branches between them: the sums
    // and what the hole only reads are fetched first, once for all runs of a row, and no row waits for
    // those before it to be stored.
    template <int kRows, int kCount, class Args, class Where>
    TILES_INLINE static void rows(const Args& a, const Epilogue& hole, int batch, int row, int r,
                                  const Where& columns, const uint8_t* slab, int first_row, bool live,
                                  Runs<kCount>& x) {
        float total[kRows][kCount][kWords];  // of a fold over N
        if constexpr (kFolds && kOverN)
#pragma unroll
            for (int i = 0; i < kRows * kCount; ++i)
                Epilogue::partial_identity(total[i / kCount][i % kCount]);
        if (live) {
            Run sums[kRows][kCount][kPhases];
#pragma unroll
            for (int i = 0; i < kRows; ++i)
#pragma unroll
                for (int j = 0; j < kCount * kPhases; ++j)
                    sums[i][j / kPhases][j % kPhases] = *reinterpret_cast<const Run*>(
                        slab + Unit::offset(first_row + r + i * kDown + j % kPhases,
                                            x.first + j / kPhases * kWidth));
#pragma unroll
            for (int i = 0; i < kRows; ++i)
#pragma unroll
                for (int j = 0; j < kCount; ++j)
                    apply(hole, batch, row + r + i * kDown, x.n[j], sums[i][j],
                          kOverN ? total[i][j] : x.kept[j][0]);
        }
        if constexpr (kFolds && kOverN)
#pragma unroll
            for (int i = 0; i < kRows; ++i)
#pragma unroll
                for (int j = 0; j < kCount; ++j) {
                    merge_lanes(total[i][j], 1, kLanes);
                    if (x.first % kWidth == 0 && row + r + i * kDown < a.rows)
                        put(a, batch, columns.slab(x.first + j * kWidth, kWidth), row + r + i * kDown,
                            total[i][j]);
                }
    }

    // The runs from column `first` on, kCount across; several only where they are live in all rows.
    template <int kCount, class Args, class Where>
    TILES_INLINE static void strip(const Args& a, const Epilogue& hole, int batch, int row,
                                   const Where& columns, const uint8_t* slab, int first_row, int down,
                                   int first) {
        constexpr int kMost = Unit::kAhead < kCount ? 1 : Unit::kAhead / kCount;
        constexpr int kAhead = Unit::kRows / kDown < kMost ? Unit::kRows / kDown : kMost;
        Runs<kCount> x = runs_of<kCount>(columns, first);
        if (kCount > 1 || row + Unit::kRows <= a.rows) {
#pragma unroll 1
            for (int r = down; r < Unit::kRows; r += kAhead * kDown)
                rows<kAhead>(a, hole, batch, row, r, columns, slab, first_row, kCount > 1 || x.live[0], x);
        } else if constexpr (kCount == 1) {
#pragma unroll 1
            for (int r = down; r < Unit::kRows; r += kDown)
                rows<1>(a, hole, batch, row, r, columns, slab, first_row, x.live[0] && row + r < a.rows, x);
        }
        if constexpr (kFolds && !kOverN)
#pragma unroll
            for (int j = 0; j < kCount; ++j)
#pragma unroll
                for (int v = 0; v < kRun; ++v) {
                    merge_lanes(x.kept[j][v], kLanes, 32);
                    if (down == 0 && x.live[j] && row < a.rows)
                        put(a, batch, row / Unit::kRows, x.n[j] + v, x.kept[j][v]);
                }
    }

    // The unit whose first row is `row` of D and `first_row` of the slab. `columns` has the members of
    // tiles::Columns; a run's columns follow each other in D, and all or none are live.
    template <class Args, class Where>
    TILES_INLINE static void run(const Args& a, const Epilogue& hole, int batch, int row,
                                 const Where& columns, const uint8_t* slab, int first_row, int lane) {
        const int first = lane % kLanes * kRun, down = lane / kLanes * kPhases;
        if constexpr (kAcross > 1) {
            bool live = row + Unit::kRows <= a.rows;
#pragma unroll
            for (int j = 0; j < kAcross; ++j) live = live && columns.live(first + j * kWidth);
            if (__all_sync(0xffffffffu, live)) {
                strip<kAcross>(a, hole, batch, row, columns, slab, first_row, down, first);
                return;
            }
        }
#pragma unroll 1
        for (int j = 0; j < kAcross; ++j)
            strip<1>(a, hole, batch, row, columns, slab, first_row, down, first + j * kWidth);
    }
};

}  // namespace tiles
