// Copies of operands as tensor cores take them: contiguous along K, 16-byte rows, rounded or split.
#pragma once
#include "narrow.cuh"

namespace tiles {

// Element (row, k) of batch b at data[b * batch + row * row_stride + k * k_stride].
struct Matrix {
    const void* data;
    int64_t row_stride, k_stride, batch;
};

// D[m, n] = sum_k A[m, k] B[n, k] for `batches` pairs; a batch stride of 0 shares one matrix among all.
struct Problem {
    Matrix a, b;
    int rows, columns, depth, batches;
};

// Formats: what an element is in memory and in the copy, which has kPlanes of them. kScaled: rows are
// scaled by powers of two, which bring their largest finite value to [1, 2).
struct Unchanged {
    using Source = uint16_t;
    using Stored = uint16_t;
    static constexpr int kPlanes = 1;
    static constexpr bool kScaled = false;
    TILES_INLINE static void take(uint16_t x, uint16_t (&v)[1]) { v[0] = x; }
};
struct ToBfloat16 {
    using Source = float;
    using Stored = uint16_t;
    static constexpr int kPlanes = 1;
    static constexpr bool kScaled = false;
    TILES_INLINE static void take(float x, uint16_t (&v)[1]) { v[0] = uint16_t(pack_bf16(x, 0.0f)); }
};
struct ToTf32 {
    using Source = float;
    using Stored = float;
    static constexpr int kPlanes = 1;
    static constexpr bool kScaled = false;
    TILES_INLINE static void take(float x, float (&v)[1]) { v[0] = rounded_tf32(x); }
};
struct ToThirds {
    using Source = float;
    using Stored = uint16_t;
    static constexpr int kPlanes = 3;
    static constexpr bool kScaled = true;
    TILES_INLINE static void take(float x, uint16_t (&v)[3]) { split_bf16(x, v); }
};

template <class T, int kCount>
struct alignas(sizeof(T) * kCount) Pack {
    T at[kCount];
};

// shift[batch][row]: the row's largest finite value times 2^shift is in [1, 2). 32 rows a block.
template <bool kAlong>
__global__ void __launch_bounds__(1024) row_shift_kernel(Matrix m, int* shift, int rows, int depth) {
    __shared__ uint32_t top[32][33];
    const int x = threadIdx.x & 31, y = threadIdx.x >> 5, strips = (rows + 31) / 32;
    const int batch = blockIdx.x / strips, first = blockIdx.x % strips * 32;
    const float* row = static_cast<const float*>(m.data) + batch * m.batch +
                       min(first + (kAlong ? y : x), rows - 1) * m.row_stride;
    uint32_t largest = 0;
#pragma unroll 8
    for (int k = kAlong ? x : y; k < depth; k += 32) largest = max(largest, finite_bits(row[k * m.k_stride]));
    top[kAlong ? y : x][kAlong ? x : y] = largest;
    __syncthreads();
    largest = top[y][x];
#pragma unroll
    for (int d = 16; d > 0; d >>= 1) largest = max(largest, __shfl_xor_sync(0xffffffffu, largest, d));
    if (x == 0 && first + y < rows) shift[int64_t(batch) * rows + first + y] = -exponent_of(largest);
}

// An element as Format takes it.
template <class Format>
TILES_INLINE void take(typename Format::Source x, const int* shift, typename Format::Stored (&v)[Format::kPlanes]) {
    if constexpr (Format::kScaled)
        Format::take(scaled(x, *shift), v);
    else
        Format::take(x, v);
}

// target[batch][plane][row][k] (rows of `pitch`) = source, contiguous along K. A thread fills 16 bytes
// of each plane; `blocks` of them make a batch.
template <class Format>
__global__ void __launch_bounds__(256)
    pack_rows_kernel(Matrix m, typename Format::Stored* target, const int* shift, int rows, int depth,
                     int64_t pitch, int blocks) {
    using Source = typename Format::Source;
    using Stored = typename Format::Stored;
    constexpr int kRun = 16 / sizeof(Stored), kPlanes = Format::kPlanes;
    const int batch = blockIdx.x / blocks;
    const int64_t at = (int64_t(blockIdx.x - batch * blocks) * 256 + threadIdx.x) * kRun;
    const int row = int(at / pitch), k = int(at % pitch);
    if (row >= rows) return;
    const Source* source = static_cast<const Source*>(m.data) + batch * m.batch + row * m.row_stride + k;
    const bool whole = k + kRun <= depth && (reinterpret_cast<uintptr_t>(source) & (sizeof(Source) * 4 - 1)) == 0;
    Pack<Stored, kRun> out[kPlanes];
#pragma unroll
    for (int i = 0; i < kRun; i += 4) {
        Pack<Source, 4> in;
        if (whole) {
            in = *reinterpret_cast<const Pack<Source, 4>*>(source + i);
        } else {
#pragma unroll
            for (int e = 0; e < 4; ++e) in.at[e] = k + i + e < depth ? source[i + e] : Source(0);
        }
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            Stored v[kPlanes];
            take<Format>(in.at[e], shift + int64_t(batch) * rows + row, v);
#pragma unroll
            for (int p = 0; p < kPlanes; ++p) out[p].at[i + e] = v[p];
        }
    }
#pragma unroll
    for (int p = 0; p < kPlanes; ++p)
        *reinterpret_cast<Pack<Stored, kRun>*>(target + (int64_t(batch) * kPlanes + p) * (rows * pitch) + at) = out[p];
}

// The same for any strides, through tiles of 32 rows x 64 of K.
template <class Format>
__global__ void __launch_bounds__(256)
    pack_tiles_kernel(Matrix m, typename Format::Stored* target, const int* shift, int rows, int depth,
                      int64_t pitch, int blocks) {
    using Source = typename Format::Source;
    constexpr int kPlanes = Format::kPlanes;
    __shared__ Source tile[64][33];
    const int x = threadIdx.x & 31, y = threadIdx.x >> 5, strips = (rows + 31) / 32;
    const int batch = blockIdx.x / blocks, block = blockIdx.x - batch * blocks;
    const int64_t row0 = int64_t(block % strips) * 32, k0 = int64_t(block / strips) * 64;
    const Source* source = static_cast<const Source*>(m.data) + batch * m.batch;
    for (int k = y; k < 64; k += 8) {
        const bool inside = row0 + x < rows && k0 + k < depth;
        tile[k][x] = inside ? source[(row0 + x) * m.row_stride + (k0 + k) * m.k_stride] : Source(0);
    }
    __syncthreads();
    for (int row = y; row < 32; row += 8)
        for (int k = x; k < 64; k += 32) {
            if (row0 + row >= rows || k0 + k >= pitch) continue;
            typename Format::Stored v[kPlanes];
            take<Format>(tile[k][row], shift + int64_t(batch) * rows + row0 + row, v);
#pragma unroll
            for (int p = 0; p < kPlanes; ++p)
                target[((int64_t(batch) * kPlanes + p) * rows + row0 + row) * pitch + k0 + k] = v[p];
        }
}

inline size_t up_to(size_t x, size_t step) { return (x + step - 1) / step * step; }

// A packed copy: `batches` times `planes` of rows of `pitch` elements, and behind it the shifts.
struct Copy {
    int batches;
    int64_t pitch;
    size_t shift_at, bytes;
};

template <class Format>
inline Copy copy_of(const Matrix& m, int rows, int depth, int batches) {
    constexpr size_t kSize = sizeof(typename Format::Stored);
    Copy c = {m.batch == 0 ? 1 : batches, int64_t(up_to(depth, 16 / kSize)), 0, 0};
    c.shift_at = up_to(size_t(c.batches) * Format::kPlanes * rows * c.pitch * kSize, 256);
    c.bytes = c.shift_at + (Format::kScaled ? up_to(size_t(c.batches) * rows * 4, 256) : 0);
    return c;
}

// Packs an operand into `copy` and replaces it by what was packed (its first plane).
template <class Format>
inline cudaError_t pack(Matrix& m, const Copy& at, uint8_t* copy, int rows, int depth, cudaStream_t queue) {
    using Stored = typename Format::Stored;
    Stored* target = reinterpret_cast<Stored*>(copy);
    int* shift = reinterpret_cast<int*>(copy + at.shift_at);
    const int strips = (rows + 31) / 32;
    if constexpr (Format::kScaled) {
        const auto kernel = m.k_stride == 1 ? row_shift_kernel<true> : row_shift_kernel<false>;
        kernel<<<unsigned(strips) * at.batches, 1024, 0, queue>>>(m, shift, rows, depth);
    }
    const int64_t runs = rows * at.pitch * int64_t(sizeof(Stored)) / 16;
    const bool along = m.k_stride == 1;
    const int blocks = along ? int((runs + 255) / 256) : strips * int((at.pitch + 63) / 64);
    const auto kernel = along ? pack_rows_kernel<Format> : pack_tiles_kernel<Format>;
    kernel<<<unsigned(blocks) * at.batches, 256, 0, queue>>>(m, target, shift, rows, depth, at.pitch, blocks);
    m = {target, at.pitch, 1, at.batches > 1 ? Format::kPlanes * rows * at.pitch : 0};
    return cudaGetLastError();
}

}  // namespace tiles
