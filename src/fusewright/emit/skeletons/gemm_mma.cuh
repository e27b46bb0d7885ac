// Matrix products on tensor cores through mma.sync and cp.async (sm_80 and later), with typed holes
// for what follows.
//
//   D[m, n] = sum over k of A[m, k] * B[n, k]        (per batch), accumulated in float32
//
// for operands of bfloat16 or float16, float32 rounded to bfloat16 or TF32, or float32 as three
// bfloat16 terms (`Thirds`): six products of rows that are scaled by powers of two, whatever the range.
// The tensor core truncates when it accumulates; so there every 32 along K start from zero and are
// added to a float32 sum with ordinary rounding, the five small products apart from the large one
// (Ootomo & Yokota, arXiv 2203.03341; bit-level model: Khattak & Mikaitis, arXiv 2512.07004); beyond
// kChain along K these sums are added up in turn.
//
// Shape of the kernel: a block makes 128 x 128 sums, a warp 64 (32: Thirds) x 64. Slices of 64 bytes
// of K are copied to a ring of stages. Rows of B are handed to the tensor core in an order that leaves
// eight neighbouring columns with each lane. Finished sums go to shared memory, rounded to 16 bits
// where the product's result would be, and from there to the hole.
//
// A product takes a hole struct (its members are listed in unit_finish.cuh) and
//   mma80::run<Type, format of A, format of B>(problem, hole, workspace, stream) -> cudaError_t
// with formats of pack.cuh, or `void` for an operand that is taken as it is: contiguous along K, base,
// rows and batches multiples of 16 bytes. All launches are on one stream, without synchronisation:
// [copies], product, [fold]. Outputs must not overlap inputs. Extents are below 2^31.
//
// Workspace (aligned to 256): the copies, rows padded to 16 bytes, each with 4 bytes per row for the
// shifts of Thirds; 4 bytes per sum of every block for Thirds beyond kChain; 4 * words * slabs * extent
// bytes of partial results, for slabs of a warp's rows (fold over M) or at most 64 columns (over N).
#pragma once
#include <type_traits>
#include "fold_slabs.cuh"
#include "pack.cuh"
#include "sm80.cuh"
#include "unit_finish.cuh"

namespace mma80 {

using tiles::Matrix;
using tiles::Problem;

constexpr int kRaster = 8;       // column tiles that run side by side, for the L2 cache
constexpr int kSlice = 64;       // bytes of K of a row per stage: two steps of the tensor core
constexpr int kTile = 128;       // rows and columns of a block
constexpr int kBlocks = 8;       // of 8 columns that a warp has
constexpr int kChain = 4096;     // of K that Thirds add up in registers

// Types of the operands: what they take in memory, how products are issued, what is handed over.
struct Bfloat16 {
    using Stored = uint16_t;
    using Handed = uint16_t;
    static constexpr int kPlanes = 1, kStages = 4;
    TILES_INLINE static uint32_t pack(float x, float y) { return tiles::pack_bf16(x, y); }
    TILES_INLINE static void multiply(float (&d)[4], const uint32_t (&a)[4], const uint32_t* b, const float* c) {
        sm80::mma_bf16(d, a, b, c);
    }
};
struct Float16 {
    using Stored = uint16_t;
    using Handed = uint16_t;
    static constexpr int kPlanes = 1, kStages = 4;
    TILES_INLINE static uint32_t pack(float x, float y) { return tiles::pack_f16(x, y); }
    TILES_INLINE static void multiply(float (&d)[4], const uint32_t (&a)[4], const uint32_t* b, const float* c) {
        sm80::mma_f16(d, a, b, c);
    }
};
struct RoundedBfloat16 : Bfloat16 {
    using Handed = float;
};
struct Tf32 {
    using Stored = float;
    using Handed = float;
    static constexpr int kPlanes = 1, kStages = 4;
    TILES_INLINE static void multiply(float (&d)[4], const uint32_t (&a)[4], const uint32_t* b, const float* c) {
        sm80::mma_tf32(d, a, b, c);
    }
};
struct Thirds : RoundedBfloat16 {
    static constexpr int kPlanes = 3, kStages = 2;
};

template <class T>
struct Tile {
    using Type = T;
    static constexpr int kPlanes = T::kPlanes, kStages = T::kStages;
    static constexpr int kRowBlocks = kPlanes == 1 ? 4 : 2;  // of 16, per warp
    static constexpr int kWarpRows = 16 * kRowBlocks, kWarpColumns = 8 * kBlocks;
    static constexpr int kWarps = kTile / kWarpRows * (kTile / kWarpColumns), kThreads = 32 * kWarps;
    static constexpr int kPlaneBytes = kTile * kSlice;                 // of one operand
    static constexpr int kStageBytes = 2 * kPlanes * kPlaneBytes;
    static constexpr int kHanded = sizeof(typename T::Handed);
    static constexpr int kSlabBytes = kWarpRows * kWarpColumns * kHanded;  // of a warp
    static constexpr int kBytes =
        kStages * kStageBytes > kWarps * kSlabBytes ? kStages * kStageBytes : kWarps * kSlabBytes;
    static_assert(kBytes <= 99 << 10, "sm_86 and sm_89 have 99 KB per block");
};

struct Args {
    const uint8_t *a, *b;
    int64_t a_row, a_plane, a_batch, b_row, b_plane, b_batch;  // bytes
    int rows, columns, depth;                                  // depth in bytes
    int row_tiles, column_tiles;
    const int *a_shift, *b_shift;        // of Thirds: [batch][row]
    int64_t a_shift_batch, b_shift_batch;
    float* totals;   // of Thirds beyond kChain: [block][sum of a thread][thread]
    float* partial;  // [batch][slab][word][row or column of the fold]
    int partial_slabs, partial_extent;
};

// A warp's slab as the epilogue sees it: groups of 8 columns are permuted by the row, so that few lanes
// meet in a bank.
template <class Tile>
struct Unit {
    static constexpr int kAhead = 2;  // rows that a lane takes at once
    static constexpr int kRows = Tile::kWarpRows, kColumns = Tile::kWarpColumns, kValueBytes = Tile::kHanded;
    TILES_INLINE static uint32_t offset(int row, int column) {
        return (row * kColumns + ((((column >> 3) ^ (row & 7)) << 3) + (column & 7))) * kValueBytes;
    }
};

// Byte of 16-byte chunk `chunk` of a row in a slice: rows that the tensor core reads together lie in
// different banks, rows of A in their order, of B as `row_of_b` has them.
template <bool kOfB>
TILES_INLINE uint32_t chunk_offset(int row, int chunk) {
    return row * kSlice + ((chunk ^ ((kOfB ? row >> 3 : row >> 1) & 3)) << 4);
}

// Row of B (a column of the result) that is row `r` of the block `j` of 8.
TILES_INLINE int row_of_b(int j, int r) { return (j >> 2) * 32 + (r >> 1) * 8 + (j & 3) * 2 + (r & 1); }

// ------------------------------------------------------------------------------------------ copies

// Copies the slice at byte `k` of one plane. Rows beyond the last one repeat it: nobody uses their
// sums. K beyond the last one is zero.
template <bool kOfB, int kThreads>
TILES_INLINE void copy_plane(uint32_t target, const uint8_t* source, int64_t pitch, int first, int rows,
                             int k, int depth) {
    const int chunk = threadIdx.x & 3, at = k + chunk * 16;
    const int bytes = min(max(depth - at, 0), 16);
#pragma unroll
    for (int i = 0; i < kTile; i += kThreads / 4) {
        const int line = (threadIdx.x >> 2) + i, row = min(first + line, rows - 1);
        sm80::copy16(target + chunk_offset<kOfB>(line, chunk), source + row * pitch + (bytes > 0 ? at : 0), bytes);
    }
}

template <class Tile>
TILES_INLINE void copy_stage(const Args& a, uint32_t stage, const uint8_t* a_data, const uint8_t* b_data,
                             int row, int column, int k) {
#pragma unroll
    for (int p = 0; p < Tile::kPlanes; ++p) {
        copy_plane<false, Tile::kThreads>(stage + p * Tile::kPlaneBytes, a_data + p * a.a_plane, a.a_row, row,
                                          a.rows, k, a.depth);
        copy_plane<true, Tile::kThreads>(stage + (Tile::kPlanes + p) * Tile::kPlaneBytes, b_data + p * a.b_plane,
                                         a.b_row, column, a.columns, k, a.depth);
    }
}

// ---------------------------------------------------------------------------------------- products

template <class Tile>
using Sums = float[Tile::kRowBlocks][kBlocks][4];

// One step of the tensor core: the warp's rows of both operands, 32 bytes of K.
template <class Tile>
struct Fragments {
    uint32_t a[Tile::kRowBlocks][4], b[kBlocks / 2][4];

    TILES_INLINE void load_a(uint32_t plane, int warp_row, int step, int lane) {
#pragma unroll
        for (int i = 0; i < Tile::kRowBlocks; ++i)
            sm80::load_matrices(plane + chunk_offset<false>(warp_row + i * 16 + (lane & 15), step * 2 + (lane >> 4)), a[i]);
    }
    TILES_INLINE void load_b(uint32_t plane, int warp_column, int step, int lane) {
#pragma unroll
        for (int j = 0; j < kBlocks; j += 2) {
            const int row = warp_column + row_of_b(j + (lane >> 4), lane & 7);
            sm80::load_matrices(plane + chunk_offset<true>(row, step * 2 + (lane >> 3 & 1)), b[j / 2]);
        }
    }
};

// d = (fresh ? 0 : d) + a * b
template <class Tile>
TILES_INLINE void multiply(Sums<Tile>& d, const uint32_t (&a)[Tile::kRowBlocks][4],
                           const uint32_t (&b)[kBlocks / 2][4], bool fresh) {
    const float zero[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
    for (int i = 0; i < Tile::kRowBlocks; ++i)
#pragma unroll
        for (int j = 0; j < kBlocks; ++j)
            Tile::Type::multiply(d[i][j], a[i], b[j / 2] + j % 2 * 2, fresh ? zero : d[i][j]);
}

// sum += part; a part that is not finite may say nothing (infinity times a lower term).
template <bool kOnlyFinite, class Tile>
TILES_INLINE void promote(Sums<Tile>& sum, const Sums<Tile>& part) {
#pragma unroll
    for (int i = 0; i < Tile::kRowBlocks; ++i)
#pragma unroll
        for (int j = 0; j < kBlocks; ++j)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const float v = part[i][j][e];
                sum[i][j][e] += !kOnlyFinite || fabsf(v) <= 3.4028235e38f ? v : 0.0f;
            }
}

// sum += the products of one stage.
template <class Tile>
TILES_INLINE void multiply_stage(uint32_t stage, int warp_row, int warp_column, int lane, Sums<Tile>& sum) {
    const uint32_t b_at = stage + Tile::kPlanes * Tile::kPlaneBytes;
    if constexpr (Tile::kPlanes == 1) {
#pragma unroll
        for (int s = 0; s < 2; ++s) {
            Fragments<Tile> f;
            f.load_a(stage, warp_row, s, lane);
            f.load_b(b_at, warp_column, s, lane);
            multiply<Tile>(sum, f.a, f.b, false);
        }
    } else {
        Sums<Tile> part;
#pragma unroll
        for (int s = 0; s < 2; ++s) {  // lo*hi, mid*mid, hi*lo, mid*hi, hi*mid
            Fragments<Tile> f[3];
#pragma unroll
            for (int p = 0; p < 3; ++p) {
                f[p].load_a(stage + p * Tile::kPlaneBytes, warp_row, s, lane);
                f[p].load_b(b_at + p * Tile::kPlaneBytes, warp_column, s, lane);
            }
            multiply<Tile>(part, f[2].a, f[0].b, s == 0);
            multiply<Tile>(part, f[1].a, f[1].b, false);
            multiply<Tile>(part, f[0].a, f[2].b, false);
            multiply<Tile>(part, f[1].a, f[0].b, false);
            multiply<Tile>(part, f[0].a, f[1].b, false);
        }
        promote<true, Tile>(sum, part);
#pragma unroll
        for (int s = 0; s < 2; ++s) {
            Fragments<Tile> f;
            f.load_a(stage, warp_row, s, lane);
            f.load_b(b_at, warp_column, s, lane);
            multiply<Tile>(part, f.a, f.b, s == 0);
        }
        promote<false, Tile>(sum, part);
    }
}

// Adds the thread's sums to its totals in global memory (stores them, the first time): to `at`, and
// then `kThreads` apart. Leaves zeros, or at the `last` time the totals.
template <class Tile>
TILES_INLINE void add_up(float* at, bool first, bool last, Sums<Tile>& sum) {
#pragma unroll
    for (int i = 0; i < Tile::kRowBlocks; ++i)
#pragma unroll
        for (int j = 0; j < kBlocks; ++j)
#pragma unroll
            for (int e = 0; e < 4; ++e, at += Tile::kThreads) {
                const float total = first ? sum[i][j][e] : *at + sum[i][j][e];
                if (!last) *at = total;
                sum[i][j][e] = last ? total : 0.0f;
            }
}

// Brings the warp's sums, from `row` and `column` on, to their true scale.
template <class Tile>
TILES_INLINE void unscale(const Args& a, int batch, int row, int column, int lane, Sums<Tile>& sum) {
    const int *a_shift = a.a_shift + batch * a.a_shift_batch, *b_shift = a.b_shift + batch * a.b_shift_batch;
#pragma unroll
    for (int j = 0; j < kBlocks; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            const int c = column + j / 4 * 32 + (lane & 3) * 8 + j % 4 * 2 + (e & 1);
            const int of_b = b_shift[min(c, a.columns - 1)];
#pragma unroll
            for (int i = 0; i < Tile::kRowBlocks; ++i) {
                const int r = row + i * 16 + e / 2 * 8 + (lane >> 2);
                sum[i][j][e] = tiles::scaled(sum[i][j][e], -(a_shift[min(r, a.rows - 1)] + of_b));
            }
        }
}

// The warp's sums to its slab: a lane has 8 neighbouring columns of every row and 32 columns.
template <class Tile>
TILES_INLINE void hand_over(uint8_t* slab, int lane, const Sums<Tile>& sum) {
#pragma unroll
    for (int i = 0; i < Tile::kRowBlocks; ++i)
#pragma unroll
        for (int h = 0; h < 2; ++h)
#pragma unroll
            for (int j = 0; j < kBlocks; j += 4) {
                uint8_t* at = slab + Unit<Tile>::offset(i * 16 + h * 8 + (lane >> 2), j * 8 + (lane & 3) * 8);
                const int e = 2 * h;
                if constexpr (Tile::kHanded == 2) {
                    uint4 v;
                    v.x = Tile::Type::pack(sum[i][j][e], sum[i][j][e + 1]);
                    v.y = Tile::Type::pack(sum[i][j + 1][e], sum[i][j + 1][e + 1]);
                    v.z = Tile::Type::pack(sum[i][j + 2][e], sum[i][j + 2][e + 1]);
                    v.w = Tile::Type::pack(sum[i][j + 3][e], sum[i][j + 3][e + 1]);
                    *reinterpret_cast<uint4*>(at) = v;
                } else {
#pragma unroll
                    for (int q = 0; q < 4; q += 2)
                        reinterpret_cast<float4*>(at)[q / 2] =
                            make_float4(sum[i][j + q][e], sum[i][j + q][e + 1], sum[i][j + q + 1][e],
                                        sum[i][j + q + 1][e + 1]);
                }
            }
}

// ------------------------------------------------------------------------------------------ kernel

template <class Tile, class Epilogue>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kPlanes == 1 ? 2 : 1)
    mma_kernel(const Args a, const Epilogue hole) {
    extern __shared__ __align__(128) uint8_t memory[];
    const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    const int warp_row = (warp >> 1) * Tile::kWarpRows, warp_column = (warp & 1) * Tile::kWarpColumns;
    const tiles::TilePlace at = tiles::raster(blockIdx.x, a.row_tiles, a.column_tiles, kRaster);
    const int row = at.block * kTile, column = at.column * kTile;
    const uint8_t *a_data = a.a + at.batch * a.a_batch, *b_data = a.b + at.batch * a.b_batch;
    const uint32_t base = sm80::shared_address(memory);

    Sums<Tile> sum = {};
    int loaded = 0;  // bytes of K
#pragma unroll
    for (int s = 0; s < Tile::kStages - 1; ++s, loaded += kSlice) {
        if (loaded < a.depth)
            copy_stage<Tile>(a, base + s * Tile::kStageBytes, a_data, b_data, row, column, loaded);
        sm80::copies_commit();
    }
    tiles::Ring<Tile::kStages> now, next;
    next.stage = Tile::kStages - 1;
    for (int k = 0; k < a.depth; k += kSlice, loaded += kSlice) {
        sm80::copies_wait<Tile::kStages - 2>();
        __syncthreads();  // everybody's copies are there, and the stage before this one is free
        if (loaded < a.depth)
            copy_stage<Tile>(a, base + next.stage * Tile::kStageBytes, a_data, b_data, row, column, loaded);
        sm80::copies_commit();
        multiply_stage<Tile>(base + now.stage * Tile::kStageBytes, warp_row, warp_column, lane, sum);
        if constexpr (Tile::kPlanes == 3) {
            const bool last = k + kSlice >= a.depth;
            if (a.depth > 2 * kChain && (last || (k + kSlice) % (2 * kChain) == 0))
                add_up<Tile>(a.totals + int64_t(blockIdx.x) * (kTile * kTile) + threadIdx.x, k < 2 * kChain,
                             last, sum);
        }
        now.next();
        next.next();
    }
    sm80::copies_wait<0>();
    __syncthreads();
    if constexpr (Tile::kPlanes == 3)
        unscale<Tile>(a, at.batch, row + warp_row, column + warp_column, lane, sum);
    uint8_t* slab = memory + warp * Tile::kSlabBytes;
    hand_over<Tile>(slab, lane, sum);
    __syncthreads();
    tiles::Finish<Unit<Tile>, Epilogue>::run(a, hole, at.batch, row + warp_row,
                                             tiles::Columns{column + warp_column, a.columns}, slab, 0, lane);
}

// -------------------------------------------------------------------------------------- the launches

// An operand of the kernel, in elements: packed into `space`, which moves on, unless Format is void.
struct Operand {
    Matrix matrix;
    int64_t plane, shift_batch;
    const int* shift;
};

template <class Format>
inline cudaError_t take(Operand& x, uint8_t*& space, int rows, int depth, int batches, cudaStream_t queue) {
    if constexpr (std::is_void_v<Format>) {
        return cudaSuccess;
    } else {
        const tiles::Copy copy = tiles::copy_of<Format>(x.matrix, rows, depth, batches);
        const cudaError_t status = tiles::pack<Format>(x.matrix, copy, space, rows, depth, queue);
        x.plane = rows * copy.pitch, x.shift_batch = copy.batches > 1 ? rows : 0;
        x.shift = reinterpret_cast<const int*>(space + copy.shift_at);
        space += copy.bytes;
        return status;
    }
}

// Enqueues the whole product. Returns the first CUDA error.
template <class Type, class FormatA, class FormatB, class Epilogue>
inline cudaError_t run(const Problem& p, const Epilogue& hole, void* workspace, cudaStream_t queue) {
    using Tile = mma80::Tile<Type>;
    constexpr int kSize = sizeof(typename Type::Stored);
    constexpr int kWidth = tiles::Finish<Unit<Tile>, Epilogue>::kWidth;
    const bool over_n = Epilogue::kFoldsOverN;
    uint8_t* space = static_cast<uint8_t*>(workspace);
    Operand a = {p.a, 0, 0, nullptr}, b = {p.b, 0, 0, nullptr};
    cudaError_t status = take<FormatA>(a, space, p.rows, p.depth, p.batches, queue);
    if (status == cudaSuccess) status = take<FormatB>(b, space, p.columns, p.depth, p.batches, queue);
    const auto kernel = mma_kernel<Tile, Epilogue>;
    if (status == cudaSuccess)
        status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Tile::kBytes);
    if (status != cudaSuccess) return status;
    const int row_tiles = (p.rows + kTile - 1) / kTile, column_tiles = (p.columns + kTile - 1) / kTile;
    const unsigned grid = unsigned(row_tiles) * column_tiles * p.batches;
    const int slabs = over_n ? column_tiles * (kTile / kWidth)
                             : (p.rows + Tile::kWarpRows - 1) / Tile::kWarpRows;
    float* totals = reinterpret_cast<float*>(space);
    const bool deep = Tile::kPlanes == 3 && p.depth > kChain;
    const Args args = {static_cast<const uint8_t*>(a.matrix.data), static_cast<const uint8_t*>(b.matrix.data),
                       a.matrix.row_stride * kSize, a.plane * kSize, a.matrix.batch * kSize,
                       b.matrix.row_stride * kSize, b.plane * kSize, b.matrix.batch * kSize,
                       p.rows, p.columns, p.depth * kSize, row_tiles, column_tiles,
                       a.shift, b.shift, a.shift_batch, b.shift_batch,
                       totals, totals + (deep ? int64_t(grid) * (kTile * kTile) : 0), slabs,
                       over_n ? p.rows : p.columns};
    kernel<<<grid, Tile::kThreads, Tile::kBytes, queue>>>(args, hole);
    status = cudaGetLastError();
    return status == cudaSuccess ? tiles::launch_fold(args, hole, p.batches, queue) : status;
}

}  // namespace mma80
