// Dense convolutions in 16-bit types on Hopper, with typed holes for what follows.
//
//   D[m, n] = sum over taps t and channels c of W[m, t, c] * X[at(n, t), c]     (per image)
//
// accumulated in float32; n counts the output pixels (depth, height, width) row by row, at(n, t) =
// n * stride + t * dilation - before along each axis. Outside of the image X is zero.
//
// Shape of the kernel: that of native_sm90.cuh. Persistent, three warpgroups, two of which multiply. In
// the other, one thread copies and, if the sums are long enough to hide it (kHands), three warps apply
// the epilogue to each tile's last slab while the next tile is multiplied; to the rest of it, who
// multiplied. One or two CTAs of a cluster share the weights.
//
// No matrix of windows exists anywhere: a tile's columns are a box of output pixels, and for each tap
// the pixels that it sees are again a box of the image, which one bulk copy fetches (zeros included).
// Taps that lie beside each other along the width see mostly the same pixels: up to kTaps of them share
// one wider box, and each one's operand starts some rows further in it.
//
// A tile is kDepth x kHeight lines of kWidth pixels. A box has kPitch pixels per line, kWidth and those
// that its further taps see. Where whole lines are as wide as a product can be, each line is a product
// of its own (kByLine) and the tile has no other columns; else one product takes the lines as they lie
// in the box, and the columns beyond kWidth of a line are computed but never shown to the hole.
#pragma once
#include "slab_sm90.cuh"
#include "sm90_boxes.cuh"

namespace conv90 {

using native90::Bfloat16;
using native90::Finish;
using native90::Float16;
using native90::kEpilogueWarps;
using native90::kFoldRows;
using native90::release;
using native90::RoundedBfloat16;
using native90::RoundedFloat16;

constexpr int kThreads = 384;

// A tile: kTileRowBlocks x 64 rows and kTileColumns columns per CTA. kCtas CTAs with tiles of the same
// rows share the weights: each loads its part for all. kMostSlab: columns handed over at once, at most;
// 64 instead of 128 leave more shared memory for stages.
template <class T, int kTileRowBlocks, int kTileColumns, int kRowBytes, int kShared, int kW, int kH,
          int kD, int kLinePitch, bool kHandsOver, int kCtas = 1, int kMostSlab = 128>
struct Tile {
    using Type = T;
    static constexpr int kCluster = kCtas;
    static constexpr int kRowBlocks = kTileRowBlocks;  // of 64 rows; 1: the warpgroups share the rows
    static constexpr int kRows = 64 * kRowBlocks;
    static constexpr int kColumns = kTileColumns;
    static constexpr int kChunk = kRowBytes;  // bytes of channels per stage
    static constexpr int kTaps = kShared;
    static constexpr int kWidth = kW, kHeight = kH, kDepth = kD, kPitch = kLinePitch;
    static constexpr bool kHands = kHandsOver;
    static constexpr int kLines = kHeight * kDepth;
    static constexpr bool kByLine = kPitch > kWidth && kWidth % 64 == 0 && kWidth * kLines == kColumns;
    static constexpr int kStep = kByLine ? kWidth : kPitch;  // columns from line to line
    static constexpr int kGroupColumns = kRowBlocks == 2 ? kColumns : kColumns / 2;
    static constexpr int kPiece = kByLine && kWidth < kGroupColumns ? kWidth : kGroupColumns;
    static constexpr int kPieces = kGroupColumns / kPiece;  // products of a warpgroup side by side

    static constexpr int kPixelBytes = (kPitch * kLines * kChunk + 1023) / 1024 * 1024;
    static constexpr int kBoxBytes = kPitch * kLines * kChunk;
    static constexpr int kTapBytes = kRows * kChunk;
    static constexpr int kStageBytes = kPixelBytes + kTaps * kTapBytes;
    static constexpr int kHanded = sizeof(typename T::Handed);
    static constexpr int kSlab = kGroupColumns < kMostSlab ? kGroupColumns : kMostSlab;
    static constexpr int kSlabs = kGroupColumns / kSlab;
    static constexpr bool kRounds = kHanded == 2 && kSlabs == 2;  // the second slab waits rounded
    static constexpr bool kLate = kRounds && kHands;              // until the next tile's middle
    static constexpr int kSlabBytes = 64 * kSlab * kHanded;
    static constexpr int kFree = 232448 - 256 - 2 * kSlabBytes;
    static constexpr int kStages = kFree / kStageBytes < 8 ? kFree / kStageBytes : 8;
    static constexpr int kSlabsAt = kStages * kStageBytes;
    static constexpr int kFull = kSlabsAt + 2 * kSlabBytes;  // barriers
    static constexpr int kEmpty = kFull + 8 * kStages;
    static constexpr int kSlabFull = kEmpty + 8 * kStages;  // per multiplying warpgroup
    static constexpr int kSlabEmpty = kSlabFull + 8 * 2;    // per multiplying warp
    static constexpr int kBytes = kSlabEmpty + 8 * 8;

    // Of a multiplying warpgroup in the tile.
    SM90_INLINE static constexpr int first_row(int group) { return kRowBlocks == 2 ? group * 64 : 0; }
    SM90_INLINE static constexpr int first_column(int group) {
        return kRowBlocks == 2 ? 0 : group * kGroupColumns;
    }
    static_assert(kRowBlocks == 1 || kRowBlocks == 2, "one block per warpgroup, or one for both");
    static_assert(kCluster == 1 || kCluster == 2, "a CTA's part of the rows is whole repeats of a swizzle");
    static_assert(kColumns == 128 || kColumns == 256, "widths of products");
    static_assert(kStep * kLines <= kColumns && kWidth <= kPitch, "the lines are columns of the tile");
    static_assert(kPitch <= 256 && kLines <= 256, "a box has at most 256 pixels along an axis");
    static_assert(kBytes <= 232448 && kStages >= 2, "a block has 227 KB of shared memory");
};

struct Args {
    int rows, columns;  // of D
    int row_blocks, tiles[3], count;  // tiles of an image: of rows, and along depth, height, width
    int out[3], stride[3], before[3], dilation[3];
    int taps[3], groups, chunks;  // groups of taps along the width; pieces of the channels
    float* partial;               // [image][slab][word][row or column of the fold]
    int partial_slabs, partial_extent;

    // Stages of a tile. Taps along the width are the outermost loop: only the last group is shorter.
    SM90_INLINE int inner() const { return taps[0] * taps[1] * chunks; }
    SM90_INLINE int stages() const { return groups * inner(); }
    SM90_INLINE int stage_taps(int stage, int shared) const {
        return stage < (groups - 1) * inner() ? shared : taps[2] - (groups - 1) * shared;
    }
    SM90_INLINE int image_tiles() const { return tiles[0] * tiles[1] * tiles[2]; }
    SM90_INLINE int cluster_tiles(int ctas) const {
        return (count * image_tiles() + ctas - 1) / ctas * row_blocks;
    }
};

struct Place {
    int image, row, number;  // first row; number of the tile's pixels in the image
    int at[3];               // first pixel

    // First row for the hole. The last cluster may have a CTA too many: its image does not exist.
    SM90_INLINE int shown_row(const Args& a) const { return image < a.count ? row : a.rows; }
};

// The CTA's part of a cluster's tile. The blocks of rows of the same pixels come one after the other,
// then the pixels beside them.
template <class Tile>
SM90_INLINE Place place_of(int tile, const Args& a, int rank) {
    const int first = tile / a.row_blocks, pixels = first * Tile::kCluster + rank;
    const int image = pixels / a.image_tiles();
    const int number = pixels - image * a.image_tiles();
    const int lines = number / a.tiles[2], x = number - lines * a.tiles[2];
    const int z = lines / a.tiles[1], y = lines - z * a.tiles[1];
    return {image, (tile - first * a.row_blocks) * Tile::kRows, number,
            {z * Tile::kDepth, y * Tile::kHeight, x * Tile::kWidth}};
}

// The columns of a unit, from column `local` of the tile on: what tiles::Columns is of a matrix.
template <class Tile>
struct Pixels {
    const Args& a;
    Place place;
    int local;

    SM90_INLINE int axis(int column, int axis) const {
        const int line = (local + column) / Tile::kStep;
        return place.at[axis] + (axis == 2   ? (local + column) % Tile::kStep
                                 : axis == 1 ? line % Tile::kHeight
                                             : line / Tile::kHeight);
    }
    SM90_INLINE int at(int column) const {
        return (axis(column, 0) * a.out[1] + axis(column, 1)) * a.out[2] + axis(column, 2);
    }
    SM90_INLINE bool live(int column) const {
        return local + column < Tile::kStep * Tile::kLines &&
               (Tile::kStep == Tile::kWidth || (local + column) % Tile::kStep < Tile::kWidth) &&
               axis(column, 0) < a.out[0] && axis(column, 1) < a.out[1] && axis(column, 2) < a.out[2];
    }
    SM90_INLINE int slab(int column, int width) const {
        return (place.number * Tile::kColumns + local + column) / width;
    }
};

// ------------------------------------------------------------------------------------------ copies

// `taps` taps of the weights; with a cluster, this CTA's part of the rows, to all.
template <class Tile>
SM90_INLINE void copy_weights(const CUtensorMap* weights, uint32_t target, uint32_t barrier, int channel,
                              int row, int tap, int taps, int rank) {
    constexpr int kPart = Tile::kRows / Tile::kCluster;
    target += rank * (kPart * Tile::kChunk);
#pragma unroll 1
    for (int t = 0; t < taps; ++t, target += Tile::kTapBytes) {
        if constexpr (Tile::kCluster == 1) {
            sm90::copy_box(target, weights, channel, row, tap + t, barrier);
        } else {
            sm90::copy_box_multicast(target, weights, channel, row + rank * kPart, tap + t, barrier,
                                     (1 << Tile::kCluster) - 1);
        }
    }
}

template <class Tile>
SM90_INLINE void copy_stage(const CUtensorMap* images, const CUtensorMap* weights, const Args& a,
                            const Place& at, uint32_t target, uint32_t barrier, int group, int z, int y,
                            int chunk, int rank) {
    const int channel = chunk * (Tile::kChunk / 2), x = group * Tile::kTaps;
    const int taps = min(Tile::kTaps, a.taps[2] - x);
    sm90::barrier_expect(barrier, Tile::kBoxBytes + taps * Tile::kTapBytes);
    sm90::copy_image_box(target, images, channel,
                         at.at[2] * a.stride[2] + x * a.dilation[2] - a.before[2],
                         at.at[1] * a.stride[1] + y * a.dilation[1] - a.before[1],
                         at.at[0] * a.stride[0] + z * a.dilation[0] - a.before[0], at.image, barrier);
    copy_weights<Tile>(weights, target + Tile::kPixelBytes, barrier, channel, at.row,
                       (z * a.taps[1] + y) * a.taps[2] + x, taps, rank);
}

template <class Tile>
SM90_INLINE void produce(const CUtensorMap* images, const CUtensorMap* weights, const Args& a,
                         uint32_t base, int rank, int first, int step, int tiles) {
    tiles::Ring<Tile::kStages> ring;
    for (int tile = first; tile < tiles; tile += step) {
        const Place at = place_of<Tile>(tile, a, rank);
        for (int g = 0; g < a.groups; ++g)
            for (int z = 0; z < a.taps[0]; ++z)
                for (int y = 0; y < a.taps[1]; ++y)
                    for (int c = 0; c < a.chunks; ++c, ring.next()) {
                        sm90::barrier_wait(base + Tile::kEmpty + 8 * ring.stage, ring.parity ^ 1);
                        copy_stage<Tile>(images, weights, a, at, base + ring.stage * Tile::kStageBytes,
                                         base + Tile::kFull + 8 * ring.stage, g, z, y, c, rank);
                    }
    }
}

// ---------------------------------------------------------------------------------------- products

// Adds a stage's first `taps` taps to the sums; `more`: there are sums already.
template <class Tile>
SM90_INLINE void add_stage(float (&d)[Tile::kGroupColumns / 2], const Args& a, uint32_t stage, int group,
                           int taps, int more) {
    using Part = float(&)[Tile::kPiece / 2];
    constexpr int kChunk = Tile::kChunk;
    const int column = Tile::first_column(group);
    const int row = column / Tile::kStep * Tile::kPitch + column % Tile::kStep;  // of the box
    uint64_t x = sm90::row_descriptor<kChunk>(stage + Tile::kPixelBytes +
                                              Tile::first_row(group) * kChunk);
    uint64_t y = sm90::row_descriptor<kChunk>(stage + row * kChunk);
    int t = 0;
#pragma unroll 1
    do {  // one tap at least
        sm90::mma_fence();
#pragma unroll
        for (int s = 0; s < kChunk / 32; ++s)
#pragma unroll
            for (int p = 0; p < Tile::kPieces; ++p)
                Tile::Type::template multiply<false, false>(
                    reinterpret_cast<Part>(d[p * (Tile::kPiece / 2)]), x + 2 * s,
                    y + 2 * s + p * (Tile::kPitch * kChunk / 16), s > 0 || t > 0 || more);
        x += Tile::kTapBytes / 16;
        y += a.dilation[2] * (kChunk / 16);
    } while (Tile::kTaps > 1 && ++t < taps);
    if (Tile::kTaps > 1) sm90::mma_fence();  // the compiler wants one where the loop ends
}

// A slab's way to the hole by the warp that computed it and put it there. It is its own.
template <class Tile, class Epilogue>
SM90_INLINE void finish_own(const Args& a, const Epilogue& hole, const Place& at, uint8_t* memory,
                            const native90::Handing<Tile>& handing, int slab) {
    const int row = Tile::first_row(handing.group) + handing.warp * 16;
    const int column = Tile::first_column(handing.group) + slab * Tile::kSlab;
    __syncwarp();
    Finish<Tile, Epilogue>::run(a, hole, at.image, at.shown_row(a) + row, Pixels<Tile>{a, at, column},
                                memory + handing.slab(), handing.warp * 16, handing.lane);
    __syncwarp();
}

// Of a tile whose sums are over: the slabs, all but the last by this warp itself; the last one is handed
// over, unless `last` says that there are no further products beside which it could be finished. Had all
// been handed over, the products would wait for each to be finished before the next has a place.
template <class Tile, class Epilogue>
SM90_INLINE void finish_slabs(const Args& a, const Epilogue& hole, const Place& at, uint8_t* memory,
                              native90::Handing<Tile>& handing, bool last,
                              const float (&d)[Tile::kGroupColumns / 2]) {
#pragma unroll
    for (int s = 0; s < Tile::kSlabs; ++s) {
        handing.put(d + s * (Tile::kSlab / 2));
        if (Tile::kHands && s == Tile::kSlabs - 1 && !last) {
            handing.tell();
        } else {
            finish_own<Tile>(a, hole, at, memory, handing, s);
        }
    }
}

// The same of two slabs that are rounded, by this warp.
template <class Tile, class Epilogue>
SM90_INLINE void finish_rounded(const Args& a, const Epilogue& hole, const Place& at, uint8_t* memory,
                                const native90::Handing<Tile>& handing,
                                const float (&d)[Tile::kGroupColumns / 2]) {
    uint32_t rest[Tile::kSlab / 4];
    handing.put(d);
    native90::round_slab<Tile>(rest, d + Tile::kSlab / 2);
#pragma unroll 1
    for (int s = 0; s < 2; ++s) {
        if (s > 0) handing.put(rest);
        finish_own<Tile>(a, hole, at, memory, handing, s);
    }
}

template <class Tile, class Epilogue>
SM90_INLINE void multiply(const Args& a, const Epilogue& hole, uint8_t* memory, uint32_t base, int group,
                          int warp, int lane, int rank, int first, int step, int tiles) {
    tiles::Ring<Tile::kStages> ring;
    native90::Handing<Tile> handing = {base, group, warp, lane};
    uint32_t rest[Tile::kSlab / 4];  // kLate: the second slab
    float d[Tile::kGroupColumns / 2];
    const int stages = a.stages();
    for (int tile = first;; tile += step) {
        int held = 0;
        for (int c = 0; c < stages; ++c) {
            sm90::barrier_wait(base + Tile::kFull + 8 * ring.stage, ring.parity);
            add_stage<Tile>(d, a, base + ring.stage * Tile::kStageBytes, group,
                            a.stage_taps(c, Tile::kTaps), c > 0);
            sm90::mma_commit();
            if (c > 0) {  // the products of the stage before are over: it may be refilled
                sm90::mma_wait<1>();
                release<Tile>(base, held, lane);
            }
            if (Tile::kLate && tile != first && c == stages / 2) {
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
        if (Tile::kHands) handing.wait();
        const bool last = tile + step >= tiles;
        if constexpr (Tile::kLate) {
            if (!last) {  // the second slab waits, rounded, until the next tile's products are half done
                handing.put(d);
                native90::round_slab<Tile>(rest, d + Tile::kSlab / 2);
                handing.tell();
                continue;
            }
        }
        const Place at = place_of<Tile>(tile, a, rank);
        if constexpr (Tile::kRounds) {
            finish_rounded<Tile>(a, hole, at, memory, handing, d);
        } else {
            finish_slabs<Tile>(a, hole, at, memory, handing, last, d);
        }
        if (Tile::kLate || last) return;
    }
}

// Epilogue warp `me`: every third unit that is handed over, in the order (tile, slab, multiplying warp).
template <class Tile, class Epilogue>
SM90_INLINE void finish(const Args& a, const Epilogue& hole, const uint8_t* memory, uint32_t base, int me,
                        int lane, int rank, int first, int step, int tiles) {
    constexpr int kGiven = Tile::kRounds ? Tile::kSlabs : 1, kUnits = 8 * kGiven;
    int unit = me;
    for (int tile = first, slabs = 0; tile + step < tiles; tile += step, slabs += kGiven) {
        const Place at = place_of<Tile>(tile, a, rank);
#pragma unroll 1
        for (; unit < kUnits; unit += kEpilogueWarps) {
            const int s = unit / 8, group = unit / 4 % 2, row = unit % 4 * 16;
            const int column =
                Tile::first_column(group) + (s + Tile::kSlabs - kGiven) * Tile::kSlab;
            sm90::barrier_wait(base + Tile::kSlabFull + 8 * group, (slabs + s) & 1);
            Finish<Tile, Epilogue>::run(a, hole, at.image,
                                        at.shown_row(a) + Tile::first_row(group) + row,
                                        Pixels<Tile>{a, at, column},
                                        memory + Tile::kSlabsAt + group * Tile::kSlabBytes, row, lane);
            __syncwarp();
            if (lane == 0) sm90::barrier_arrive(base + Tile::kSlabEmpty + 8 * (unit % 8));
        }
        unit -= kUnits;
    }
}

// ------------------------------------------------------------------------------------------ kernel

template <class Tile, class Epilogue>
__global__ void __cluster_dims__(Tile::kCluster, 1, 1) __launch_bounds__(kThreads, 1)
    conv_kernel(const __grid_constant__ CUtensorMap images, const __grid_constant__ CUtensorMap weights,
                const __grid_constant__ Args a, const Epilogue hole) {
    alignas(1024) extern __shared__ uint8_t memory[];  // where the patterns of swizzles start
    const uint32_t base = sm90::shared_address(memory);
    const int warp = __shfl_sync(0xffffffffu, threadIdx.x >> 5, 0);
    const int lane = threadIdx.x & 31;
    const int rank = Tile::kCluster == 1 ? 0 : sm90::cluster_rank();
    const int first = blockIdx.x / Tile::kCluster, step = gridDim.x / Tile::kCluster;
    const int tiles = a.cluster_tiles(Tile::kCluster);

    if (threadIdx.x == 0) {
        native90::init_barriers<Tile>(base);
        sm90::prefetch_map(&images);
        sm90::prefetch_map(&weights);
    }
    sm90::cluster_sync();

    if (warp < 4) {
        sm90::registers_release<native90::kEpilogueRegisters>();
        if (warp > 0) {
            if (Tile::kHands) finish<Tile>(a, hole, memory, base, warp - 1, lane, rank, first, step, tiles);
        } else if (lane == 0) {
            produce<Tile>(&images, &weights, a, base, rank, first, step, tiles);
        }
    } else {
        sm90::registers_acquire<native90::kMultiplyRegisters>();
        multiply<Tile>(a, hole, memory, base, (warp >> 2) - 1, warp & 3, lane, rank, first, step, tiles);
    }
    __syncwarp();
    sm90::cluster_sync();  // no CTA leaves while its peer may still write to it
}

}  // namespace conv90
