// Matrix products in the tensor core's own types on Hopper, with typed holes for what follows.
//
//   D[m, n] = sum over k of A[m, k] * B[n, k]        (per batch), accumulated in float32
//
// for operands of bfloat16, float16 or TF32 (float32 in memory, rounded by `native_sm90_launch.cuh`).
// Each operand is contiguous along K or, 16-bit types only, across its rows.
//
// Shape of the kernel: persistent, clusters of one or two CTAs that share the tile of B (each loads
// half and multicasts it), three warpgroups. Two multiply, 64 rows each. In the other, one thread
// copies and three warps apply the epilogue: the multiplying warps hand them their sums through shared
// memory and go on with the next tile, so the epilogue runs beside the products. After its last tile
// every multiplying warp applies the epilogue itself.
// 16-bit results are handed over rounded to their type, as the product's result is without an epilogue.
// Of a wide tile the second half of the columns waits in registers, rounded, until the middle of the
// next tile: half the shared memory does then, which makes room for a fourth stage.
#pragma once
#include "slab_sm90.cuh"

namespace native90 {

constexpr int kRows = 128;       // of A per CTA: 64 per multiplying warpgroup
constexpr int kThreads = 384;
constexpr int kRaster = 8;       // column tiles that run side by side, for the L2 cache

struct Tf32 {
    using Stored = float;
    using Handed = float;
    template <bool kAcrossA, bool kAcrossB, int kCount>
    SM90_INLINE static void multiply(float (&d)[kCount], uint64_t a, uint64_t b, int accumulate) {
        static_assert(!kAcrossA && !kAcrossB, "TF32 operands are contiguous along K");
        sm90::mma_shared_tf32(d, a, b, accumulate);
    }
};

// A tile: 128 rows per CTA and kColumns columns per cluster of kCluster CTAs.
template <class T, int kTileColumns, int kCtas>
struct Tile {
    using Type = T;
    static constexpr int kColumns = kTileColumns;
    static constexpr int kCluster = kCtas;
    static constexpr int kDepth = 128 / sizeof(typename T::Stored);  // of K per stage
    static constexpr int kSteps = 4;                                 // products per stage
    static constexpr int kABytes = kRows * 128, kBBytes = kColumns * 128;
    static constexpr int kStageBytes = kABytes + kBBytes;
    static constexpr int kHanded = sizeof(typename T::Handed);
    static constexpr int kSlab = 128;
    static constexpr int kSlabs = kColumns / kSlab;
    static constexpr bool kLate = kHanded == 2 && kSlabs == 2;  // the second slab waits in registers
    static constexpr int kSlabBytes = 64 * kSlab * kHanded;     // one per multiplying warpgroup
    static constexpr int kFree = 232448 - 2048 - 2 * kSlabBytes;
    static constexpr int kStages = kFree / kStageBytes < 6 ? kFree / kStageBytes : 6;
    static constexpr int kSlabsAt = kStages * kStageBytes;
    static constexpr int kFull = kSlabsAt + 2 * kSlabBytes;  // barriers
    static constexpr int kEmpty = kFull + 8 * kStages;
    static constexpr int kSlabFull = kEmpty + 8 * kStages;  // per multiplying warpgroup
    static constexpr int kSlabEmpty = kSlabFull + 8 * 2;    // per multiplying warp
    static constexpr int kBytes = kSlabEmpty + 8 * 8 + 1024;  // 1024: alignment of the base
    static_assert(kBytes <= 232448 && kStages >= 3, "a block has 227 KB of shared memory");
};

struct Args {
    int rows, columns, chunks, batches;
    int row_blocks, column_tiles;  // of kCluster * 128 rows and kColumns columns
    int a_batched, b_batched;      // 0: one matrix for every batch
    float* partial;                // [batch][slab][word][row or column of the fold]
    int partial_slabs, partial_extent;
};

struct Place {
    int batch, row, column;  // first of the CTA
};

template <class Tile>
SM90_INLINE Place place_of(int tile, const Args& a, int rank) {
    const tiles::TilePlace at = tiles::raster(tile, a.row_blocks, a.column_tiles, kRaster);
    return {at.batch, (at.block * Tile::kCluster + rank) * kRows, at.column * Tile::kColumns};
}

// ------------------------------------------------------------------------------------------ copies

// `lines` rows of an operand, 128 bytes of K each; or, across rows, boxes of 64 rows x 64 of K.
template <bool kAcross, int kLines, int kCluster>
SM90_INLINE void copy_operand(uint32_t target, const CUtensorMap* map, int row, int k, int batch,
                              uint32_t barrier) {
    constexpr int kBoxes = kAcross ? kLines / 64 : 1;
#pragma unroll
    for (int b = 0; b < kBoxes; ++b) {
        const uint32_t at = target + b * 8192;
        const int x = kAcross ? row + 64 * b : k, y = kAcross ? k : row;
        if constexpr (kCluster == 1) {
            sm90::copy_box(at, map, x, y, batch, barrier);
        } else {
            sm90::copy_box_multicast(at, map, x, y, batch, barrier, (1 << kCluster) - 1);
        }
    }
}

template <class Tile, bool kAcrossA, bool kAcrossB>
SM90_INLINE void produce(const CUtensorMap* a_map, const CUtensorMap* b_map, const Args& a,
                         uint32_t base, int rank, int first, int step, int tiles) {
    constexpr int kShare = Tile::kColumns / Tile::kCluster;
    tiles::Ring<Tile::kStages> ring;
    for (int tile = first; tile < tiles; tile += step) {
        const Place at = place_of<Tile>(tile, a, rank);
        for (int c = 0; c < a.chunks; ++c, ring.next()) {
            const uint32_t target = base + ring.stage * Tile::kStageBytes;
            const uint32_t barrier = base + Tile::kFull + 8 * ring.stage;
            sm90::barrier_wait(base + Tile::kEmpty + 8 * ring.stage, ring.parity ^ 1);
            sm90::barrier_expect(barrier, Tile::kStageBytes);
            copy_operand<kAcrossA, kRows, 1>(target, a_map, at.row, c * Tile::kDepth,
                                             at.batch * a.a_batched, barrier);
            copy_operand<kAcrossB, kShare, Tile::kCluster>(
                target + Tile::kABytes + rank * (kShare * 128), b_map, at.column + rank * kShare,
                c * Tile::kDepth, at.batch * a.b_batched, barrier);
        }
    }
}

// ---------------------------------------------------------------------------------------- products

template <class Tile, bool kAcrossA, bool kAcrossB, class Epilogue>
SM90_INLINE void multiply(const Args& a, const Epilogue& hole, uint8_t* memory, uint32_t base, int group,
                          int warp, int lane, int rank, int first, int step, int tiles) {
    tiles::Ring<Tile::kStages> ring;
    Handing<Tile> handing = {base, group, warp, lane};
    uint32_t rest[Tile::kSlab / 4];  // kLate: the second slab
    float d[Tile::kColumns / 2];
    int tile = first;
    for (;; tile += step) {
        int held = 0;
        for (int c = 0; c < a.chunks; ++c) {
            sm90::barrier_wait(base + Tile::kFull + 8 * ring.stage, ring.parity);
            const uint32_t stage = base + ring.stage * Tile::kStageBytes;
            const uint32_t mine = stage + group * 8192, shared = stage + Tile::kABytes;
            const uint64_t x = kAcrossA ? sm90::transposed_descriptor(mine) : sm90::operand_descriptor(mine);
            const uint64_t y =
                kAcrossB ? sm90::transposed_descriptor(shared) : sm90::operand_descriptor(shared);
            sm90::mma_fence();
#pragma unroll
            for (int s = 0; s < Tile::kSteps; ++s)
                Tile::Type::template multiply<kAcrossA, kAcrossB>(d, x + s * (kAcrossA ? 128 : 2),
                                                                  y + s * (kAcrossB ? 128 : 2),
                                                                  s > 0 || c > 0);
            sm90::mma_commit();
            if (c > 0) {  // the products of the chunk before are over: its stage may be refilled
                sm90::mma_wait<1>();
                release<Tile>(base, held, lane);
            }
            if (Tile::kLate && tile != first && c == a.chunks / 2) {
                handing.wait();
                handing.put(rest);
                handing.tell();
            }
            held = ring.stage;
            ring.next();
        }
        sm90::mma_wait<0>();
        sm90::pin(d);
        release<Tile>(base, held, lane);
        handing.wait();
        handing.put(d);
        if constexpr (Tile::kLate) round_slab<Tile>(rest, d + Tile::kSlab / 2);
        if (tile + step >= tiles) break;
        handing.tell();
        if constexpr (Tile::kSlabs == 2 && !Tile::kLate) {
            handing.wait();
            handing.put(d + Tile::kSlab / 2);
            handing.tell();
        }
    }
    const Place at = place_of<Tile>(tile, a, rank);
#pragma unroll(Tile::kLate ? 1 : Tile::kSlabs)
    for (int s = 0; s < Tile::kSlabs; ++s) {
        if constexpr (Tile::kLate) {
            if (s > 0) handing.put(rest);
        } else {
            if (s > 0) handing.put(d + s * (Tile::kSlab / 2));
        }
        __syncwarp();
        Finish<Tile, Epilogue>::run(a, hole, at.batch, at.row + group * 64 + warp * 16,
                                    tiles::Columns{at.column + s * Tile::kSlab, a.columns},
                                    memory + handing.slab(), warp * 16, lane);
        __syncwarp();
    }
}

// Epilogue warp `me`: every third unit, in the order (tile, slab, multiplying warp).
template <class Tile, class Epilogue>
SM90_INLINE void finish(const Args& a, const Epilogue& hole, const uint8_t* memory, uint32_t base, int me,
                        int lane, int rank, int first, int step, int tiles) {
    constexpr int kUnits = 8 * Tile::kSlabs;
    int unit = me;
    for (int tile = first, slabs = 0; tile + step < tiles; tile += step, slabs += Tile::kSlabs) {
        const Place at = place_of<Tile>(tile, a, rank);
#pragma unroll 1
        for (; unit < kUnits; unit += kEpilogueWarps) {
            const int s = unit / 8, group = unit / 4 % 2, row = unit % 4 * 16;
            sm90::barrier_wait(base + Tile::kSlabFull + 8 * group, (slabs + s) & 1);
            Finish<Tile, Epilogue>::run(a, hole, at.batch, at.row + group * 64 + row,
                                        tiles::Columns{at.column + s * Tile::kSlab, a.columns},
                                        memory + Tile::kSlabsAt + group * Tile::kSlabBytes, row, lane);
            __syncwarp();
            if (lane == 0) sm90::barrier_arrive(base + Tile::kSlabEmpty + 8 * (unit % 8));
        }
        unit -= kUnits;
    }
}

// ------------------------------------------------------------------------------------------ kernel

template <class Tile, bool kAcrossA, bool kAcrossB, class Epilogue>
__global__ void __cluster_dims__(Tile::kCluster, 1, 1) __launch_bounds__(kThreads, 1)
    native_kernel(const __grid_constant__ CUtensorMap a_map, const __grid_constant__ CUtensorMap b_map,
                  const Args a, const Epilogue hole) {
    extern __shared__ uint8_t raw[];
    const uint32_t base = (sm90::shared_address(raw) + 1023u) & ~1023u;
    uint8_t* memory = raw + (base - sm90::shared_address(raw));
    const int rank = Tile::kCluster == 1 ? 0 : sm90::cluster_rank();
    const int warp = __shfl_sync(0xffffffffu, threadIdx.x >> 5, 0);
    const int lane = threadIdx.x & 31;
    const int first = blockIdx.x / Tile::kCluster, step = gridDim.x / Tile::kCluster;
    const int tiles = a.batches * a.row_blocks * a.column_tiles;

    if (threadIdx.x == 0) {
        init_barriers<Tile>(base);
        sm90::prefetch_map(&a_map);
        sm90::prefetch_map(&b_map);
    }
    sm90::cluster_sync();

    if (warp < 4) {
        sm90::registers_release<kEpilogueRegisters>();
        if (warp > 0) {
            finish<Tile>(a, hole, memory, base, warp - 1, lane, rank, first, step, tiles);
        } else if (lane == 0) {
            produce<Tile, kAcrossA, kAcrossB>(&a_map, &b_map, a, base, rank, first, step, tiles);
        }
    } else {
        sm90::registers_acquire<kMultiplyRegisters>();
        multiply<Tile, kAcrossA, kAcrossB>(a, hole, memory, base, (warp >> 2) - 1, warp & 3, lane, rank,
                                           first, step, tiles);
    }
    __syncwarp();
    sm90::cluster_sync();  // no CTA leaves while its peer may still write to it
}

}  // namespace native90
