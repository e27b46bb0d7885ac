// The fp16 product of small depth (K of one or two chunks), whose time is that of its results' stores.
//
// Each consumer warpgroup holds 64 rows of S as fragments in registers while tiles of P, 64 columns
// each, go by; the three groups work out of step, so that one stores while another multiplies. Results
// pass through shared memory, to be stored along C's rows in whole lines.
//
// A block takes `run` consecutive tiles, numbered along a panel (64 rows per group), then across
// panels. Accuracy, guard and hole are those of `gemm_kernel`; no folds, no slices of K. The hole has
//   static constexpr int kRun;   // 1, 2, 4: of neighbouring n that `apply` also takes, if more than 1:
//   __device__ void apply(int batch, int m, int n, const float (&acc)[kRun], float* p) const;
#pragma once
#include "gemm_sm90.cuh"

namespace gemm90 {

template <int kDepthChunks>
struct Short {
    static constexpr int kChunks = kDepthChunks;
    static constexpr int kGroups = 3;
    static constexpr int kPanelRows = 64 * kGroups;
    static constexpr int kTile = 64;  // columns
    static constexpr int kThreads = 128 * kGroups + 128;
    static constexpr int kStages = kChunks == 1 ? 6 : 2;
    static constexpr int kChunkBytes = kGroups * kGroupBytes;  // of a panel
    static constexpr int kPlane = kTile * kChunk * 2;          // bytes of one plane of one chunk
    static constexpr int kStage = kChunks * Fast::kPlanes * kPlane;
    static constexpr int kSlab = 64 * kTile * 4;
    static constexpr int kTilesAt = kChunks * kChunkBytes;
    static constexpr int kSlabsAt = kTilesAt + kStages * kStage;
    static constexpr int kStat = 320;  // see produce_stats
    static constexpr int kStatsAt = kSlabsAt + kGroups * kSlab;
    static constexpr int kPanelFull = kStatsAt + kStages * kStat;
    static constexpr int kPanelEmpty = kPanelFull + 8;
    static constexpr int kTileFull = kPanelEmpty + 8;
    static constexpr int kTileEmpty = kTileFull + 8 * kStages;
    static constexpr int kBytes = kTileEmpty + 8 * kStages + 1024;  // 1024: alignment of the base
    static_assert(kBytes <= 232448, "a block has 227 KB of shared memory");
};

// The block's tiles, one after the other: `column`-th of panel number `panel`.
struct Walk {
    int left, panel, column;

    SM90_INLINE Walk(const Args& a, int run) {
        const int first = blockIdx.x * run;
        left = min(run, a.batches * a.row_blocks * a.column_tiles - first);
        panel = first / a.column_tiles;
        column = first - panel * a.column_tiles;
    }

    SM90_INLINE bool live() const { return left > 0; }

    SM90_INLINE void next(const Args& a) {
        --left;
        if (++column == a.column_tiles) column = 0, ++panel;
    }
};

// ------------------------------------------------------------------------------------- producers

// One thread: the copies.
template <bool kMajorK, class Smem>
SM90_INLINE void produce_short(const CUtensorMap* stream_map, const CUtensorMap* plane_map,
                               const Args& a, uint32_t base, int run) {
    Ring<Smem::kStages> ring;
    uint32_t parity = 1;
    int held = -1, batch = 0;
    for (Walk walk(a, run); walk.live(); walk.next(a), ring.next()) {
        if (walk.panel != held) {
            held = walk.panel;
            batch = held / a.row_blocks;
            sm90::barrier_wait(base + Smem::kPanelEmpty, parity);
            parity ^= 1;
            sm90::barrier_expect(base + Smem::kPanelFull, Smem::kChunks * Smem::kChunkBytes);
            for (int c = 0; c < Smem::kChunks; ++c)
                copy_stream<kMajorK, Smem::kGroups>(base + c * Smem::kChunkBytes, stream_map,
                                                    (held - batch * a.row_blocks) * Smem::kPanelRows, c,
                                                    batch * a.stream_batched, base + Smem::kPanelFull);
        }
        const uint32_t barrier = base + 8 * ring.stage;
        const uint32_t target = base + Smem::kTilesAt + ring.stage * Smem::kStage;
        sm90::barrier_wait(barrier + Smem::kTileEmpty, ring.parity ^ 1);
        sm90::barrier_expect(barrier + Smem::kTileFull, Smem::kStage);
#pragma unroll 1
        for (int i = 0; i < Smem::kChunks * Fast::kPlanes; ++i)
            sm90::copy_box(target + i * Smem::kPlane, plane_map, i / Fast::kPlanes * kChunk,
                           walk.column * Smem::kTile,
                           batch * a.plane_batched * Fast::kPlanes + i % Fast::kPlanes,
                           barrier + Smem::kTileFull);
    }
}

// One warp: what the consumers need to know of a tile's columns. 64 floats, the columns' scales relative
// to the largest, then its exponent, the smallest one's, and the sum of squares of the bounds.
template <class Smem>
SM90_INLINE void produce_stats(const Args& a, uint32_t base, int run, int lane) {
    Ring<Smem::kStages> ring;
    for (Walk walk(a, run); walk.live(); walk.next(a), ring.next()) {
        const PlaneStat* stat = stats_of(a, {walk.panel / a.row_blocks, 0, walk.column * Smem::kTile});
        const int4 v = *reinterpret_cast<const int4*>(stat + 2 * lane);
        const int top = combine_warp(max(v.x, v.z), Larger());
        const int bottom = -combine_warp(max(v.x > kNoColumn ? -v.x : -top, v.z > kNoColumn ? -v.z : -top),
                                         Larger());
        const float x = sm90::power_of_two(max(v.x - top, -126));
        const float y = sm90::power_of_two(max(v.z - top, -126));
        const float bound_x = __int_as_float(v.y) * x, bound_y = __int_as_float(v.w) * y;
        const float bound = combine_warp(bound_x * bound_x + bound_y * bound_y, Plus());
        const uint32_t barrier = base + 8 * ring.stage;
        const uint32_t target = base + Smem::kStatsAt + ring.stage * Smem::kStat;
        sm90::barrier_wait(barrier + Smem::kTileEmpty, ring.parity ^ 1);
        sm90::store_shared2(target + 8 * lane, x, y);
        if (lane == 0) {
            sm90::store_shared2(target + 256, __int_as_float(top), __int_as_float(bottom));
            sm90::store_shared(target + 264, bound);
        }
        __syncwarp();
        if (lane == 0) sm90::barrier_arrive(barrier + Smem::kTileFull);
    }
}

// --------------------------------------------------------------------------------------- products

// sum = the tile's product, promoted every 32 of K.
template <int kChunks>
SM90_INLINE void multiply_short(const Fragments<Fast> (&f)[kChunks], uint64_t planes, float (&sum)[32],
                                float (&part)[32]) {
    issue<0, 2>(sum, f[0], planes);
    issue<2, 2>(part, f[0], planes);
    promote(sum, part);
    sm90::pin(sum);
    if constexpr (kChunks == 2) {
        planes += 2 * step_of<32>(0, 1, 0);
        issue<0, 2>(part, f[1], planes);
        promote(sum, part);
        issue<2, 2>(part, f[1], planes);
        promote(sum, part);
    }
}

// ------------------------------------------------------------------------------------------ stores

// Results of a group on their way to memory: rows of 64 along C's rows; groups of 8 words permuted so
// that neither the fragments' stores nor the rows' loads meet in a bank.
template <bool kSwapped>
struct Slab {
    SM90_INLINE static uint32_t permutation(int row) {
        return kSwapped ? (row >> 1 & 3) << 5 : (row & 1) << 5 | ((row >> 1 ^ row >> 2) & 1) << 6;
    }

    // Byte of D[i, j].
    SM90_INLINE static uint32_t offset(int i, int j) {
        const int row = kSwapped ? j : i, word = kSwapped ? i : j;
        return row * 256 + (word * 4 ^ permutation(row));
    }

    // `row`: the thread's first row of D in the group; `pair`: its first column.
    SM90_INLINE static void put(uint32_t slab, int row, int pair, const float (&value)[32]) {
        const uint32_t at[2] = {slab + offset(row, pair), slab + offset(row + 8, pair)};
#pragma unroll
        for (int i = 0; i < 32; i += 2) {  // columns 8 * (i / 4) from the first: no new permutation
            const uint32_t first = at[i >> 1 & 1];
            if constexpr (kSwapped) {
                sm90::store_shared(first + (i >> 2) * 2048, value[i]);
                sm90::store_shared(first + (i >> 2) * 2048 + 256, value[i + 1]);
            } else {
                sm90::store_shared2(first ^ (i >> 2) * 32, value[i], value[i + 1]);
            }
        }
    }

    // Hands the warp's 16 rows of the slab to the hole, a run of words per lane and step; `at`: of the
    // slab's first element.
    template <bool kChecked, class Epilogue>
    SM90_INLINE static void store(const Args& a, const Epilogue& hole, uint32_t slab, const Place& at,
                                  int warp, int lane) {
        constexpr int kRun = Epilogue::kRun, kLanes = kRun > 1 ? 64 / kRun : 32;
        const int word = lane % kLanes * kRun, down = lane / kLanes;
        const int first = (kSwapped ? at.column : at.row) + warp * 16;
        const int n = (kSwapped ? at.row : at.column) + word;
        const int end = kSwapped ? a.columns : a.rows, width = kSwapped ? a.rows : a.columns;
#pragma unroll(kChecked ? 1 : 4)
        for (int i = 0; i < 16; i += 32 / kLanes) {
            const int r = i + down;
            const uint32_t line = slab + (warp * 16 + r) * 256, flip = permutation(r);
#pragma unroll
            for (int w = 0; w < 64; w += kLanes * kRun) {
                const uint32_t source = line + ((word + w) * 4 ^ flip);
                if (kChecked && (first + r >= end || n + w >= width)) continue;
                if constexpr (kRun == 1) {
                    hole.apply(at.batch, first + r, n + w, sm90::load_shared(source), nullptr);
                } else {
                    float v[kRun];
                    sm90::load_shared_run(source, v);
                    hole.apply(at.batch, first + r, n + w, v, nullptr);
                }
            }
        }
    }
};

// --------------------------------------------------------------------------------------- consumers

// `weight`: squares of the rows' true scales relative to the largest of the warp's, 0 for rows of zeros.
template <bool kMajorK>
struct ShortRows : Rows<Fast, kMajorK> {
    float scale[2], weight[2];

    SM90_INLINE ShortRows(const Args& a, const Place& at, int group, int warp, int lane)
        : Rows<Fast, kMajorK>(a, at, group, warp, lane) {
        int top = -1000;
#pragma unroll
        for (int r = 0; r < 2; ++r)
            if (this->relevant[r]) top = max(top, -this->shift[r]);
        top = combine_warp(top, Larger());
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const float w = sm90::power_of_two(min(max(-this->shift[r] - top, -126), 0));
            scale[r] = sm90::power_of_two(this->shift[r]);
            weight[r] = this->relevant[r] ? w * w : 0.0f;
        }
    }
};

// `unscale` of a tile whose scales, and those of the rows, are close to one another: the same guard,
// with the columns' part of it at hand.
template <bool kMajorK>
SM90_INLINE void unscale_close(float (&sum)[32], const float (&weight)[16], int top, float bound,
                               const ShortRows<kMajorK>& rows, int* flag) {
    float size[2] = {0.0f, 0.0f}, back[2];
#pragma unroll
    for (int r = 0; r < 2; ++r)
        back[r] = sm90::power_of_two(min(max(top - rows.shift[r], -120), 120));
#pragma unroll
    for (int i = 0; i < 32; ++i) {
        const int r = i >> 1 & 1;
        const float value = sum[i] * weight[2 * (i >> 2) + (i & 1)];
        size[r] += value * value;
        sum[i] = value * back[r];
    }
    // A quarter of the bound for each of the four lanes that share a row.
    const float excess = combine_warp(rows.weight[0] * (0.25f * bound - 16.0f * size[0]) +
                                          rows.weight[1] * (0.25f * bound - 16.0f * size[1]),
                                      Plus());
    const bool finite = size[0] <= 1e38f && size[1] <= 1e38f;
    if (!finite || !(excess <= 0.0f)) *flag = 1;  // all write the same
}

// Brings a tile to its true scale and judges it; `about`: what `produce_stats` wrote.
template <bool kMajorK>
SM90_INLINE void unscale_short(float (&sum)[32], uint32_t about, const PlaneStat* stats, int pair,
                               const ShortRows<kMajorK>& rows, int* flag) {
    const float4 v = sm90::load_shared4(about + 256);
    const int top = __float_as_int(v.x), bottom = __float_as_int(v.y);
    bool close = top - bottom <= 60;
#pragma unroll
    for (int r = 0; r < 2; ++r) close = close && (!rows.relevant[r] || abs(top - rows.shift[r]) <= 120);
    if (__all_sync(0xffffffffu, close)) {
        float weight[16];
#pragma unroll
        for (int q = 0; q < 8; ++q) {
            weight[2 * q] = sm90::load_shared(about + (8 * q + pair) * 4);
            weight[2 * q + 1] = sm90::load_shared(about + (8 * q + pair) * 4 + 4);
        }
        unscale_close(sum, weight, top, v.z, rows, flag);
    } else {
        unscale_apart<true>(sum, stats + pair, top, rows.shift, rows.relevant, flag);
    }
}

// Rows of the panel to come, as fragments.
template <class Smem, bool kMajorK, class Epilogue>
SM90_INLINE void read_panel(const Args& a, const Epilogue& hole, StreamReader<kMajorK>& reader,
                            uint32_t base, const Place& at, const ShortRows<kMajorK>& rows, int lane,
                            Fragments<Fast> (&f)[Smem::kChunks]) {
    sm90::forget(reader.offset);  // its addresses would cost the products registers
    StreamMap<Epilogue, kMajorK> map = {hole, a};
    map.start(at, rows.row);
#pragma unroll
    for (int c = 0; c < Smem::kChunks; ++c) {
        Raw raw;
        load_raw(reader, base + c * Smem::kChunkBytes, raw);
        map.apply(raw, lane);
        convert(raw, rows.scale, f[c]);
    }
}

template <class Smem, bool kMajorK, class Epilogue>
SM90_INLINE void consume_short(const Args& a, const Epilogue& hole, uint32_t base, int run, int group,
                               int warp, int lane) {
    using Out = Slab<Epilogue::kSwapped>;
    StreamReader<kMajorK> reader(group, warp, lane);
    const int pair = 2 * (lane & 3);
    const uint32_t slab = base + Smem::kSlabsAt + group * Smem::kSlab;
    Ring<Smem::kStages> ring;
    uint32_t parity = 0;
    for (Walk walk(a, run); walk.live();) {
        const int panel = walk.panel, batch = panel / a.row_blocks;
        Place at = {batch, (panel - batch * a.row_blocks) * Smem::kPanelRows, 0, 0, Smem::kChunks};
        const ShortRows<kMajorK> rows(a, at, group, warp, lane);
        Fragments<Fast> f[Smem::kChunks];
        sm90::barrier_wait(base + Smem::kPanelFull, parity);
        parity ^= 1;
        read_panel<Smem>(a, hole, reader, base, at, rows, lane, f);
        at.row += group * 64;
        bool fresh = true;
        do {
            float sum[32], part[32];
            at.column = walk.column * Smem::kTile;
            const uint32_t barrier = base + 8 * ring.stage;
            sm90::barrier_wait(barrier + Smem::kTileFull, ring.parity);
            multiply_short(f, sm90::operand_descriptor(base + Smem::kTilesAt + ring.stage * Smem::kStage),
                           sum, part);
            unscale_short(sum, base + Smem::kStatsAt + ring.stage * Smem::kStat, stats_of(a, at), pair,
                          rows, a.flag);
            __syncwarp();
            if (lane == 0) {
                sm90::barrier_arrive(barrier + Smem::kTileEmpty);
                if (fresh) sm90::barrier_arrive(base + Smem::kPanelEmpty);
            }
            fresh = false;
            sm90::group_sync(1 + group);  // the slab has been read
            Out::put(slab, warp * 16 + fragment_row<kMajorK>(lane >> 2), pair, sum);
            sm90::group_sync(1 + group);
            if (at.row + 64 <= a.rows && at.column + Smem::kTile <= a.columns) {
                Out::template store<false>(a, hole, slab, at, warp, lane);
            } else {
                Out::template store<true>(a, hole, slab, at, warp, lane);
            }
            walk.next(a), ring.next();
        } while (walk.live() && walk.panel == panel);
    }
}

// ------------------------------------------------------------------------------------------ kernel

template <bool kMajorK, int kChunks, class Epilogue>
__global__ void __launch_bounds__(Short<kChunks>::kThreads, 1)
    short_kernel(const __grid_constant__ CUtensorMap stream_map,
                 const __grid_constant__ CUtensorMap plane_map, const Args a, const Epilogue hole,
                 int run) {
    using Smem = Short<kChunks>;
    static_assert(Epilogue::kPartialWords == 0 && Epilogue::kSlices == 1, "these take gemm_kernel");
    extern __shared__ uint8_t raw[];
    const uint32_t base = (sm90::shared_address(raw) + 1023u) & ~1023u;
    const int warp = __shfl_sync(0xffffffffu, threadIdx.x >> 5, 0);
    const int lane = threadIdx.x & 31;
    if (threadIdx.x == 0) {
        sm90::barrier_init(base + Smem::kPanelFull, 1);
        sm90::barrier_init(base + Smem::kPanelEmpty, 4 * Smem::kGroups);
        for (int s = 0; s < Smem::kStages; ++s) {
            sm90::barrier_init(base + Smem::kTileFull + 8 * s, 2);
            sm90::barrier_init(base + Smem::kTileEmpty + 8 * s, 4 * Smem::kGroups);
        }
        sm90::barrier_init_fence();
        sm90::prefetch_map(&stream_map);
        sm90::prefetch_map(&plane_map);
    }
    __syncthreads();
    if (warp >= 4 * Smem::kGroups) {
        sm90::registers_release<32>();
        if (warp == 4 * Smem::kGroups && lane == 0)
            produce_short<kMajorK, Smem>(&stream_map, &plane_map, a, base, run);
        if (warp == 4 * Smem::kGroups + 1) produce_stats<Smem>(a, base, run, lane);
    } else {
        sm90::registers_acquire<160>();
        consume_short<Smem, kMajorK>(a, hole, base, run, warp >> 2, warp & 3, lane);
    }
}

}  // namespace gemm90
