// Tile shape, schemes, arguments and raster of the Hopper matrix product: what its parts share.
#pragma once
#include "sm90.cuh"
#include "raster.cuh"

namespace gemm90 {

constexpr int kChunk = 64;        // along K, per pipeline stage and per promotion
constexpr int kRows = 128;        // of S per CTA: 64 per consumer warpgroup
constexpr int kColumns = 128;     // of P per cluster
constexpr int kCluster = 2;
constexpr int kThreads = 384;
constexpr int kRaster = 8;        // column tiles that run side by side, for the L2 cache
constexpr int kGroupBytes = 64 * kChunk * 4;  // of S: two boxes of 128-byte lines, 64 each
constexpr int kStreamBytes = kRows / 64 * kGroupBytes;
constexpr int kPlaneBytes = kColumns * kChunk * 2;
constexpr int kFoldRows = 16;     // streamed rows that share one entry of the partial buffer
constexpr int kStreamTarget = 10; // a streamed row's sampled maximum is scaled to [2^10, 2^11)
constexpr int kPlaneTarget = 14;  // a planes row's maximum to [2^14, 2^15)
constexpr int kZeroRow = -1000;   // exponent of a streamed row without a nonzero finite element
constexpr int kNoColumn = -400;   // exponent of a column beyond the last, in the padding

// kShortChunks: up to this depth partial sums are promoted every 32 of K, beyond it every 64.
struct Fast {
    static constexpr int kPlanes = 2;
    static constexpr int kShortChunks = 16;
    static constexpr int kStreamStages = 4;
    static constexpr int kPlaneStages = 3;
};

struct Safe {
    static constexpr int kPlanes = 3;
    static constexpr int kShortChunks = 32;
    static constexpr int kStreamStages = 2;
    static constexpr int kPlaneStages = 3;
};

// Per row of P, in scaled units: true value = scaled value * 2^exponent.
struct PlaneStat {
    int exponent;
    float bound;  // see the guard above
};

// How blocks of `prepare_kernel` divide P: a row per block, a row per warp, or strips of 32 rows that
// are contiguous across rows. kAny: found when it runs.
enum class Division { kBlockRows, kWarpRows, kStrips, kAny };

struct Args {
    int rows, columns, depth, chunks, batches;
    int row_blocks, column_tiles;    // of 2 * kRows and kColumns
    int stream_batched, plane_batched;  // 0: one matrix for every batch
    int padded_columns;              // of PlaneStat per batch
    const int* stream_exponent;      // per streamed row: floor(log2) of its sampled maximum, or kZeroRow
    const PlaneStat* plane_stat;
    int* flag;
    float* partial;                  // [batch][slab][word][row or column of the fold]
    int partial_slabs, partial_extent;
    int per_slice;                   // chunks of K that one cluster takes, with kSlices > 1
    float4* slices;                  // [slice][unit][quarter of 64][lane]: sums before the epilogue
};

constexpr int kUnits = kCluster * 8;        // warps that multiply a tile: 16 x 128 results each
constexpr int kUnitBytes = 16 * kColumns * 4;

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

// Whether partial sums of so many chunks are promoted every 32 of K; at compile time, if the hole knows.
template <class Scheme, class Hole>
SM90_INLINE bool is_short(int chunks) {
    constexpr int kOfSlice = (Hole::kDepth + kChunk * Hole::kSlices - 1) / (kChunk * Hole::kSlices);
    return (Hole::kDepth > 0 ? kOfSlice : chunks) <= Scheme::kShortChunks;
}

template <int kStages>
using Ring = tiles::Ring<kStages>;

struct Place {
    int batch, row, column;  // first row of the CTA, first column of the cluster
    int chunk, chunks;       // along K: the first one, and how many
};

// With more than one slice, the tiles of the first slice of K come first.
template <int kSlices = 1>
SM90_INLINE Place place_of(int tile, const Args& a, int rank) {
    int chunk = 0, chunks = a.chunks;
    if constexpr (kSlices > 1) {
        const int per_slice = a.batches * a.row_blocks * a.column_tiles;
        chunk = tile / per_slice * a.per_slice;
        chunks = min(a.per_slice, a.chunks - chunk);
        tile %= per_slice;
    }
    const tiles::TilePlace at = tiles::raster(tile, a.row_blocks, a.column_tiles, kRaster);
    return {at.batch, (at.block * kCluster + rank) * kRows, at.column * kColumns, chunk, chunks};
}

}  // namespace gemm90
