// float32 matrix products by multiply-adds, for any GPU, with typed holes for what follows.
//
//   D[m, n] = sum over k of A[m, k] * B[n, k]        (per batch)
//
// Exact float32 arithmetic: fused multiply-adds in chains of kChain along K, added up in order. No
// chain is longer, so the error grows with the number of chains, and with K only from there on.
//
// Shape of the kernel: 2 x 2 warps; a thread owns rows of four neighbours and columns of four
// neighbours. Slices along K of both operands lie in shared memory, K outermost, twice: the next
// slice is read into registers while one is multiplied. Sums of chains are added up in a slab of
// shared memory, from which the warp that made them hands them to the hole.
//
// A product takes a hole struct (its members are listed in unit_finish.cuh) and
//   fma32::run<Tile, Layout of A, of B>(problem, hole, workspace, stream) -> cudaError_t
// All launches are on one stream, without synchronisation: the product, and with a fold what merges
// the partial results. Outputs must not overlap inputs. Extents are below 2^31.
//
// Workspace (aligned to 256): 4 * words * slabs * extent bytes of partial results, for slabs of a
// warp's rows (fold over M) or of at most a warp's columns (over N).
#pragma once
#include "fold_slabs.cuh"
#include "unit_finish.cuh"

namespace fma32 {

constexpr int kChain = 256;  // of K per chain of multiply-adds
constexpr int kRaster = 8;   // column tiles that run side by side, for the L2 cache

// Element (row, k) of batch b at data[b * batch + row * row_stride + k * k_stride].
struct Matrix {
    const float* data;
    int64_t row_stride, k_stride, batch;
};

// D[m, n] = sum_k A[m, k] B[n, k] for `batches` pairs; a batch stride of 0 shares one matrix among all.
struct Problem {
    Matrix a, b;
    int rows, columns, depth, batches;
};

// How an operand is read: along K or across its rows, by four elements (the stride there is 1, all
// else is divisible by 4, across also the number of rows) or one by one.
enum class Layout { kAlongK4, kAlongK, kAcross4, kAcross };

// A thread owns kThreadRows x kThreadColumns sums, both multiples of 4; a warp has 4 x 8 threads.
template <int kRowsOfThread, int kColumnsOfThread>
struct Tile {
    static constexpr int kThreadRows = kRowsOfThread, kThreadColumns = kColumnsOfThread;
    static constexpr int kWarpRows = 4 * kThreadRows, kWarpColumns = 8 * kThreadColumns;
    static constexpr int kRows = 2 * kWarpRows, kColumns = 2 * kWarpColumns, kThreads = 128;
    static constexpr int kDepth = kThreadRows * kThreadColumns >= 64 ? 8 : 16;  // of K per slice
    static constexpr int kPitchA = kRows + 4, kPitchB = kColumns + 4;  // of a k in a slice
    static constexpr int kSlice = kDepth * (kPitchA + kPitchB);        // floats
    static constexpr int kSlab = kWarpRows * kWarpColumns;             // floats of a warp
    static constexpr int kBytes = (2 * kSlice + 4 * kSlab) * 4;
};

struct Args {
    Matrix a, b;
    int rows, columns, depth;
    int row_tiles, column_tiles;
    float* partial;  // [batch][slab][word][row or column of the fold]
    int partial_slabs, partial_extent;
};

// A warp's slab as the epilogue sees it.
template <class Tile>
struct Unit {
    static constexpr int kAhead = 2;  // rows that a lane takes at once
    static constexpr int kRows = Tile::kWarpRows, kColumns = Tile::kWarpColumns, kValueBytes = 4;
    TILES_INLINE static uint32_t offset(int row, int column) { return (row * kColumns + column) * 4; }
};

// What a thread reads of the slices of one operand: kItems times 4 (or 1) elements.
template <Layout kLayout, int kLines, int kDepth, int kThreads>
struct Reader {
    static constexpr bool kAlong = kLayout == Layout::kAlongK4 || kLayout == Layout::kAlongK;
    static constexpr int kVector = kLayout == Layout::kAlongK4 || kLayout == Layout::kAcross4 ? 4 : 1;
    static constexpr int kItems = kLines * kDepth / kVector / kThreads;
    static constexpr int kPitch = kLines + 4;
    static constexpr int kPerK = kLines / kVector;    // across
    static_assert(kItems * kVector * kThreads == kLines * kDepth, "threads share a slice evenly");

    float held[kItems * kVector];

    // The place of an item: lanes take whole sectors (8 along K), and words of different banks.
    static constexpr int kSector = 8 / kVector;
    TILES_INLINE static int line(int item) {
        return kAlong ? item / kSector % kLines : item % kPerK * kVector;
    }
    TILES_INLINE static int k_of(int item) {
        return kAlong ? item / kSector / kLines * 8 + item % kSector * kVector : item / kPerK;
    }

    // Rows beyond the last one repeat it: nobody uses their sums. K beyond the last one is zero.
    TILES_INLINE void read(const Matrix& m, const float* data, int first, int rows, int k0, int depth) {
#pragma unroll
        for (int i = 0; i < kItems; ++i) {
            const int item = threadIdx.x + i * kThreads, k = k0 + k_of(item);
            const int row = min(first + line(item), rows - (kAlong ? 1 : kVector));
            const float* at = data + row * m.row_stride + k * m.k_stride;
            float* v = held + i * kVector;
            if (kVector == 4 && (kAlong ? k + 4 <= depth : k < depth)) {
                const float4 x = *reinterpret_cast<const float4*>(at);
                v[0] = x.x, v[1] = x.y, v[2] = x.z, v[3] = x.w;
            } else {
#pragma unroll
                for (int e = 0; e < kVector; ++e) v[e] = kAlong && k + e < depth ? at[e] : 0.0f;
                if (!kAlong && kVector == 1 && k < depth) v[0] = *at;
            }
        }
    }

    TILES_INLINE void write(float* slice) const {
#pragma unroll
        for (int i = 0; i < kItems; ++i) {
            const int item = threadIdx.x + i * kThreads;
            float* at = slice + k_of(item) * kPitch + line(item);
            const float* v = held + i * kVector;
            if (kVector == 4 && !kAlong) {
                *reinterpret_cast<float4*>(at) = make_float4(v[0], v[1], v[2], v[3]);
            } else {
#pragma unroll
                for (int e = 0; e < kVector; ++e) at[e * kPitch] = v[e];
            }
        }
    }
};

// Runs of four from shared memory: of every `kStep` words from `at`.
template <int kStep, int kCount>
TILES_INLINE void load_runs(const float* at, float (&v)[kCount]) {
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
        const float4 x = *reinterpret_cast<const float4*>(at + i / 4 * kStep);
        v[i] = x.x, v[i + 1] = x.y, v[i + 2] = x.z, v[i + 3] = x.w;
    }
}

// sum += the products of one slice; `a` and `b` point to the thread's first row and column in it.
template <class Tile>
TILES_INLINE void multiply(const float* a, const float* b,
                           float (&sum)[Tile::kThreadRows][Tile::kThreadColumns]) {
#pragma unroll
    for (int k = 0; k < Tile::kDepth; ++k) {
        float x[Tile::kThreadRows], y[Tile::kThreadColumns];
        load_runs<16>(a + k * Tile::kPitchA, x);
        load_runs<32>(b + k * Tile::kPitchB, y);
#pragma unroll
        for (int r = 0; r < Tile::kThreadRows; ++r)
#pragma unroll
            for (int c = 0; c < Tile::kThreadColumns; ++c) sum[r][c] = fmaf(x[r], y[c], sum[r][c]);
    }
}

// Adds the thread's sums to the slab (or stores them, the first time) and clears them.
template <class Tile>
TILES_INLINE void add_up(float* slab, int down, int across, bool first,
                         float (&sum)[Tile::kThreadRows][Tile::kThreadColumns]) {
#pragma unroll
    for (int r = 0; r < Tile::kThreadRows; ++r) {
        const int row = r / 4 * 16 + down * 4 + r % 4;
#pragma unroll
        for (int c = 0; c < Tile::kThreadColumns; c += 4) {
            float4* at = reinterpret_cast<float4*>(slab + row * Tile::kWarpColumns + c * 8 + across * 4);
            float4 t = first ? make_float4(0.0f, 0.0f, 0.0f, 0.0f) : *at;
            t.x += sum[r][c], t.y += sum[r][c + 1], t.z += sum[r][c + 2], t.w += sum[r][c + 3];
            *at = t;
            sum[r][c] = sum[r][c + 1] = sum[r][c + 2] = sum[r][c + 3] = 0.0f;
        }
    }
}

template <class Tile, Layout kA, Layout kB, class Epilogue>
__global__ void __launch_bounds__(Tile::kThreads, 2) fma_kernel(const Args a, const Epilogue hole) {
    extern __shared__ __align__(16) float memory[];
    constexpr int kDepth = Tile::kDepth;
    const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, down = lane >> 3, across = lane & 7;
    const tiles::TilePlace at = tiles::raster(blockIdx.x, a.row_tiles, a.column_tiles, kRaster);
    const int row = at.block * Tile::kRows, column = at.column * Tile::kColumns;
    const int warp_row = (warp >> 1) * Tile::kWarpRows, warp_column = (warp & 1) * Tile::kWarpColumns;
    const float *a_data = a.a.data + at.batch * a.a.batch, *b_data = a.b.data + at.batch * a.b.batch;
    float* slab = memory + 2 * Tile::kSlice + warp * Tile::kSlab;
    const int a_at = warp_row + down * 4, b_at = kDepth * Tile::kPitchA + warp_column + across * 4;

    Reader<kA, Tile::kRows, kDepth, Tile::kThreads> x;
    Reader<kB, Tile::kColumns, kDepth, Tile::kThreads> y;
    float sum[Tile::kThreadRows][Tile::kThreadColumns] = {};
    x.read(a.a, a_data, row, a.rows, 0, a.depth);
    y.read(a.b, b_data, column, a.columns, 0, a.depth);
    for (int k = 0, buffer = 0; k < a.depth; k += kDepth, buffer ^= 1) {
        // Who still reads the other buffer has passed the barrier of the slice before.
        float* slice = memory + buffer * Tile::kSlice;
        x.write(slice);
        y.write(slice + kDepth * Tile::kPitchA);
        __syncthreads();
        if (k + kDepth < a.depth) {
            x.read(a.a, a_data, row, a.rows, k + kDepth, a.depth);
            y.read(a.b, b_data, column, a.columns, k + kDepth, a.depth);
        }
        multiply<Tile>(slice + a_at, slice + b_at, sum);
        if ((k + kDepth) % kChain == 0 || k + kDepth >= a.depth)
            add_up<Tile>(slab, down, across, k < kChain, sum);
    }
    __syncthreads();
    tiles::Finish<Unit<Tile>, Epilogue>::run(a, hole, at.batch, row + warp_row,
                                             tiles::Columns{column + warp_column, a.columns},
                                             reinterpret_cast<const uint8_t*>(slab), 0, lane);
}

// Enqueues the whole product. Returns the first CUDA error.
template <class Tile, Layout kA, Layout kB, class Epilogue>
inline cudaError_t run(const Problem& p, const Epilogue& hole, void* workspace, cudaStream_t queue) {
    const int row_tiles = (p.rows + Tile::kRows - 1) / Tile::kRows;
    const int column_tiles = (p.columns + Tile::kColumns - 1) / Tile::kColumns;
    const bool over_n = Epilogue::kFoldsOverN;
    constexpr int kWidth = tiles::Finish<Unit<Tile>, Epilogue>::kWidth;
    const int slabs = over_n ? column_tiles * (Tile::kColumns / kWidth)
                             : (p.rows + Tile::kWarpRows - 1) / Tile::kWarpRows;
    const Args args = {p.a, p.b, p.rows, p.columns, p.depth, row_tiles, column_tiles,
                       static_cast<float*>(workspace), slabs, over_n ? p.rows : p.columns};
    const auto kernel = fma_kernel<Tile, kA, kB, Epilogue>;
    cudaError_t status =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Tile::kBytes);
    if (status != cudaSuccess) return status;
    const unsigned grid = unsigned(row_tiles) * column_tiles * p.batches;
    kernel<<<grid, Tile::kThreads, Tile::kBytes, queue>>>(args, hole);
    status = cudaGetLastError();
    if (status == cudaSuccess) status = tiles::launch_fold(args, hole, p.batches, queue);
    return status;
}

}  // namespace fma32
