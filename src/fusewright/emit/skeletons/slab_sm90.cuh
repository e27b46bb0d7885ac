// How the multiplying warps of Hopper's products in 16-bit types give back stages of the ring and hand
// their sums to the epilogue.
//
// Per multiplying warpgroup there is a slab in shared memory, 64 rows of Tile::kSlab columns. A warp
// writes its 16 rows, a unit; who applies the epilogue reads them by runs of a row (unit_finish.cuh).
// Three warps share the units in turn. A slab counts as full when all its four units are: so each of
// the three waits for every filling of it and never takes one filling's parity for another's.
// 16-bit results are handed over rounded to their type, as the product's result is without an epilogue.
#pragma once
#include "sm90_shared.cuh"
#include "raster.cuh"
#include "unit_finish.cuh"

namespace native90 {

constexpr int kFoldRows = 16;  // rows of a unit; with a fold over M they share one partial result
constexpr int kEpilogueWarps = 3;
constexpr int kEpilogueRegisters = 104, kMultiplyRegisters = 200;  // of 168 per thread at launch

// Types of the operands: what they take in memory, how products are issued, what is handed over.
struct Bfloat16 {
    using Stored = uint16_t;
    using Handed = uint16_t;
    SM90_INLINE static uint32_t pack(float x, float y) { return sm90::pack_bf16(x, y); }
    template <bool kAcrossA, bool kAcrossB, int kCount>
    SM90_INLINE static void multiply(float (&d)[kCount], uint64_t a, uint64_t b, int accumulate) {
        sm90::mma_shared_bf16<kAcrossA, kAcrossB>(d, a, b, accumulate);
    }
};

struct Float16 {
    using Stored = uint16_t;
    using Handed = uint16_t;
    SM90_INLINE static uint32_t pack(float x, float y) { return sm90::pack_f16(x, y); }
    template <bool kAcrossA, bool kAcrossB, int kCount>
    SM90_INLINE static void multiply(float (&d)[kCount], uint64_t a, uint64_t b, int accumulate) {
        sm90::mma_shared_f16<kAcrossA, kAcrossB>(d, a, b, accumulate);
    }
};

// float32 results of products in 16-bit types.
struct RoundedBfloat16 : Bfloat16 {
    using Handed = float;
};
struct RoundedFloat16 : Float16 {
    using Handed = float;
};

// One thread's part of the start: the barriers of the ring of stages and of the slabs.
template <class Tile>
SM90_INLINE void init_barriers(uint32_t base) {
    for (int s = 0; s < Tile::kStages; ++s) {
        sm90::barrier_init(base + Tile::kFull + 8 * s, 1);
        sm90::barrier_init(base + Tile::kEmpty + 8 * s, 8 * Tile::kCluster);
    }
    for (int g = 0; g < 2; ++g) sm90::barrier_init(base + Tile::kSlabFull + 8 * g, 4);
    for (int w = 0; w < 8; ++w) sm90::barrier_init(base + Tile::kSlabEmpty + 8 * w, 1);
    sm90::barrier_init_fence();
}

// A multiplying warp has no more use for a stage of the ring, here and in the CTAs that share it.
template <class Tile>
SM90_INLINE void release(uint32_t base, int stage, int lane) {
    const uint32_t barrier = base + Tile::kEmpty + 8 * stage;
    if constexpr (Tile::kCluster == 1) {
        if (lane == 0) sm90::barrier_arrive(barrier);
    } else {
        if (lane < Tile::kCluster) sm90::barrier_arrive_at(barrier, lane);
    }
}

// Byte of element (row, column) in a slab of 64 rows and Tile::kSlab columns: groups of 8 columns are
// permuted by the row, so that neither the fragments' stores nor the rows' loads meet in a bank.
template <class Tile>
SM90_INLINE uint32_t slab_offset(int row, int column) {
    return row * (Tile::kSlab * Tile::kHanded) +
           ((((column >> 3) ^ (row & 7)) << 3) + (column & 7)) * Tile::kHanded;
}

// A unit as the epilogue sees it.
template <class Tile>
struct Unit {
    static constexpr int kRows = kFoldRows, kColumns = Tile::kSlab, kValueBytes = Tile::kHanded;
    static constexpr int kAhead = 4;  // rows that a lane takes at once
    SM90_INLINE static uint32_t offset(int row, int column) { return slab_offset<Tile>(row, column); }
};

template <class Tile, class Epilogue>
using Finish = tiles::Finish<Unit<Tile>, Epilogue>;

// A slab of a warp's 16 x kColumns sums, `d`, as 16-bit values in the order of the fragments.
template <class Tile>
SM90_INLINE void round_slab(uint32_t (&words)[Tile::kSlab / 4], const float* d) {
#pragma unroll
    for (int i = 0; i < Tile::kSlab / 4; ++i) words[i] = Tile::Type::pack(d[2 * i], d[2 * i + 1]);
}

// The slabs of a multiplying warp's sums on their way to the epilogue, one at a time: its rows of the
// group's slab in shared memory.
template <class Tile>
struct Handing {
    uint32_t base;
    int group, warp, lane;
    int filled = 0;  // times

    SM90_INLINE uint32_t slab() const { return Tile::kSlabsAt + group * Tile::kSlabBytes; }

    // Waits for the epilogue to have read what was there.
    SM90_INLINE void wait() const {
        sm90::barrier_wait(base + Tile::kSlabEmpty + 8 * (group * 4 + warp), ~filled & 1);
    }
    SM90_INLINE void tell() {
        __syncwarp();
        if (lane == 0) sm90::barrier_arrive(base + Tile::kSlabFull + 8 * group);
        ++filled;
    }

    SM90_INLINE void put(const uint32_t (&words)[Tile::kSlab / 4]) const {
        // Columns of 16 change bits that nothing else sets: one address stays in a register.
        uint32_t first = base + slab() + slab_offset<Tile>(warp * 16 + (lane & 15), (lane >> 4) * 8);
        sm90::forget(first);
#pragma unroll
        for (int c = 0; c < Tile::kSlab; c += 16) {
            const uint32_t* v = words + c / 4;
            sm90::store_matrices(first ^ (c * 2), v[0], v[1], v[2], v[3]);
        }
    }
    SM90_INLINE void put(const float* d) const {
        if constexpr (Tile::kHanded == 2) {
            uint32_t words[Tile::kSlab / 4];
            round_slab<Tile>(words, d);
            put(words);
        } else {
            const int row = warp * 16 + (lane >> 2), column = 2 * (lane & 3);
#pragma unroll
            for (int c = 0; c < Tile::kSlab; c += 8) {
                const float* v = d + c / 2;
                sm90::store_shared2(base + slab() + slab_offset<Tile>(row, c + column), v[0], v[1]);
                sm90::store_shared2(base + slab() + slab_offset<Tile>(row + 8, c + column), v[2], v[3]);
            }
        }
    }
};

}  // namespace native90
