// What runs before and after `gemm_sm90.cuh`: the split of the planes operand into 16-bit terms, the
// sampling of the streamed operand's row ranges and the padded copy of a misaligned operand. All
// memory-bound; every result is independent of scheduling.
#pragma once
#include "gemm_sm90.cuh"

namespace gemm90 {

// A matrix in memory: element (row, k) of batch b at data[b * batch + row * row_stride + k * k_stride].
struct Matrix {
    const float* data;
    int64_t row_stride, k_stride, batch;
};

struct Prepare {
    Matrix planes_source, stream_source;
    int columns, padded_columns, depth, padded_depth, plane_batches;  // of the planes operand
    int rows, stream_batches;                                         // of the streamed operand
    bool paired;           // planes in the order of K that StreamReader<true> expects
    uint16_t* planes;      // [batch][plane][column][padded_depth]
    PlaneStat* stat;       // [batch][padded_columns]
    int* stream_exponent;  // [batch][row]
    int* flag;
};

constexpr uint32_t kInfinityBits = 0x7f800000u;

// |x| as bits, whose order is that of the values; 0 if x is not finite.
SM90_INLINE uint32_t finite_bits(float x) {
    const uint32_t bits = __float_as_uint(x) & 0x7fffffffu;
    return bits < kInfinityBits ? bits : 0;
}

// floor(log2(x)) from the bits of x > 0; 0 for zero.
SM90_INLINE int exponent_of(uint32_t bits) {
    if (bits == 0) return 0;
    return bits >= 0x00800000u ? int(bits >> 23) - 127 : 31 - __clz(bits) - 149;
}

// A row's exact maximum is known here, so tiny and huge rows are both brought to the middle.
SM90_INLINE int plane_shift(uint32_t max_bits) {
    return min(max(kPlaneTarget - exponent_of(max_bits), -126), 126);
}

template <int kPlanes>
SM90_INLINE void split_terms(float x, float y, uint32_t (&term)[kPlanes]) {
    if constexpr (kPlanes == 2) {
        split(x, y, term[0], term[1]);
    } else {
        split(x, y, term[0], term[1], term[2]);
    }
}

// What a pair adds to PlaneStat::bound. `lost` counts only what exceeds the 2^-23 relative error of a
// pair of fp16 terms that are both normal.
template <int kPlanes>
SM90_INLINE float bound_of(float x, float y, const uint32_t (&term)[kPlanes]) {
    if constexpr (kPlanes == 3) return 0.0f;
    float hx, hy, lx, ly;
    sm90::unpack_f16(term[0], hx, hy);
    sm90::unpack_f16(term[1], lx, ly);
    const float lost = fmaxf(fabsf(x - hx - lx) - 0x1p-23f * fabsf(x), 0.0f) +
                       fmaxf(fabsf(y - hy - ly) - 0x1p-23f * fabsf(y), 0.0f);
    return fabsf(x) + fabsf(y) + 0x1p41f * lost;
}

template <class T, class Combine>
SM90_INLINE T combine_block(T v, Combine combine) {
    __shared__ T part[32];
    v = combine_warp(v, combine);
    __syncthreads();
    if ((threadIdx.x & 31) == 0) part[threadIdx.x >> 5] = v;
    __syncthreads();
    v = part[0];
    for (int w = 1; w < int(blockDim.x >> 5); ++w) v = combine(v, part[w]);
    return v;
}

// A row of P as it lies in memory, or as the hole computes it.
template <class Hole>
struct PlaneRow {
    const Hole& hole;
    int batch, column, depth;
    const float* row;  // element k at row[k * step]
    int64_t step;

    SM90_INLINE PlaneRow(const Prepare& a, const Hole& hole, int batch, int column)
        : hole(hole), batch(batch), column(column), depth(a.depth),
          row(a.planes_source.data + batch * a.planes_source.batch +
              column * a.planes_source.row_stride),
          step(a.planes_source.k_stride) {}

    SM90_INLINE float at(int k) const {
        if (k >= depth) return 0.0f;
        if constexpr (Hole::kMapsPlanes) return hole.planes(batch, column, k);
        return row[k * step];
    }

    // Four from k on of a row that is contiguous along K.
    SM90_INLINE float4 at4(int k) const {
        if constexpr (!Hole::kMapsPlanes)
            if ((reinterpret_cast<uintptr_t>(row) & 15) == 0 && k + 4 <= depth)
                return *reinterpret_cast<const float4*>(row + k);
        return make_float4(at(k), at(k + 1), at(k + 2), at(k + 3));
    }
};

// One row of P, contiguous along K, by a warp (short rows) or by the block.
template <int kPlanes, bool kWarp, class Hole>
SM90_INLINE void split_row(const Prepare& a, const Hole& hole, int batch, int column) {
    const int rank = kWarp ? threadIdx.x & 31 : threadIdx.x, size = kWarp ? 32 : blockDim.x;
    PlaneStat* stat = a.stat + int64_t(batch) * a.padded_columns + column;
    if (column >= a.columns) {
        if (rank == 0) *stat = {kNoColumn, 0.0f};
        return;
    }
    const PlaneRow<Hole> row(a, hole, batch, column);
    uint32_t top = 0;
    for (int k = rank * 4; k < a.depth; k += size * 4) {
        const float4 v = row.at4(k);
        top = max(max(max(finite_bits(v.x), finite_bits(v.y)),
                      max(finite_bits(v.z), finite_bits(v.w))), top);
    }
    const int shift = plane_shift(kWarp ? combine_warp(top, Larger()) : combine_block(top, Larger()));
    const float scale = sm90::power_of_two(shift);
    const int64_t plane_size = int64_t(a.columns) * a.padded_depth;
    uint16_t* target = a.planes + batch * kPlanes * plane_size + int64_t(column) * a.padded_depth;
    const bool upper = rank & 1;
    float bound = 0.0f;
    // Whole warps run every round: neighbours exchange halves. padded_depth is a multiple of 64.
    for (int k0 = (rank & ~31) * 4; k0 < a.padded_depth; k0 += size * 4) {
        const int k = k0 + (threadIdx.x & 31) * 4;
        float4 v = row.at4(k);
        v.x *= scale, v.y *= scale, v.z *= scale, v.w *= scale;
        uint32_t low[kPlanes], high[kPlanes];
        split_terms<kPlanes>(v.x, v.y, low);
        split_terms<kPlanes>(v.z, v.w, high);
        bound += bound_of<kPlanes>(v.x, v.y, low) + bound_of<kPlanes>(v.z, v.w, high);
        // Paired order in each 16: 0 1 4 5 8 9 12 13 2 3 6 7 10 11 14 15.
        const int at = a.paired ? (k & ~15) + ((k >> 2) & 1) * 8 + ((k >> 3) & 1) * 4 : k;
#pragma unroll
        for (int p = 0; p < kPlanes; ++p) {
            uint2 word = make_uint2(low[p], high[p]);
            if (a.paired) {
                const uint32_t other = __shfl_xor_sync(0xffffffffu, upper ? low[p] : high[p], 1);
                word = upper ? make_uint2(other, high[p]) : make_uint2(low[p], other);
            }
            if (k < a.padded_depth) *reinterpret_cast<uint2*>(target + p * plane_size + at) = word;
        }
    }
    bound = kWarp ? combine_warp(bound, Plus()) : combine_block(bound, Plus());
    if (rank == 0) *stat = {-shift, bound};
}

// One block of 256: 32 rows of P that are contiguous across rows, not along K (a transposing split).
template <int kPlanes, class Hole>
SM90_INLINE void split_strip(const Prepare& a, const Hole& hole, int batch, int first) {
    __shared__ uint32_t tops[8][32];
    __shared__ float tile[64][33];
    const int x = threadIdx.x & 31, y = threadIdx.x >> 5;
    const bool live = first + x < a.columns;
    const PlaneRow<Hole> row(a, hole, batch, first + x);
    uint32_t top = 0;
    if (live)
        for (int k = y; k < a.depth; k += 8) top = max(top, finite_bits(row.at(k)));
    tops[y][x] = top;
    __syncthreads();
    // Warp y finishes rows first + y * 4 + (0..3).
    int shift[4];
    float bound[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
    for (int c = 0; c < 4; ++c)
        shift[c] = plane_shift(combine_warp(x < 8 ? tops[x][y * 4 + c] : 0u, Larger()));
    const int64_t plane_size = int64_t(a.columns) * a.padded_depth;
    const int position = 2 * x & 15;  // of this lane's pair in its group of 16 along K
    const int k_in_group = a.paired ? (position & 7) * 2 + (position >> 3) * 2 : position;
    for (int k0 = 0; k0 < a.padded_depth; k0 += 64) {
        __syncthreads();
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const int k = k0 + y + 8 * i;
            tile[y + 8 * i][x] = live ? row.at(k) : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int c = 0; c < 4; ++c) {
            const int column = first + y * 4 + c;
            const float scale = sm90::power_of_two(shift[c]);
            const int k = (2 * x & ~15) + k_in_group;
            const float u = tile[k][y * 4 + c] * scale, v = tile[k + 1][y * 4 + c] * scale;
            uint32_t term[kPlanes];
            split_terms<kPlanes>(u, v, term);
            bound[c] += bound_of<kPlanes>(u, v, term);
            uint16_t* target = a.planes + batch * kPlanes * plane_size +
                               int64_t(column) * a.padded_depth + k0 + 2 * x;
            if (column < a.columns)
#pragma unroll
                for (int p = 0; p < kPlanes; ++p)
                    *reinterpret_cast<uint32_t*>(target + p * plane_size) = term[p];
        }
    }
#pragma unroll
    for (int c = 0; c < 4; ++c) {
        const int column = first + y * 4 + c;
        const float total = combine_warp(bound[c], Plus());
        PlaneStat* stat = a.stat + int64_t(batch) * a.padded_columns + column;
        if (x == 0) *stat = column < a.columns ? PlaneStat{-shift[c], total} : PlaneStat{kNoColumn, 0.0f};
    }
}

// A row of S. `largest` is the largest finite |x| (as bits) among `count` elements from k on.
template <class Hole>
struct StreamRow {
    const Hole& hole;
    int batch, row;
    const float* data;
    int64_t k_stride;

    SM90_INLINE uint32_t largest(int k, int step, int count) const {
        uint32_t top = 0;
#pragma unroll 8
        for (int i = 0; i < count; ++i, k += step) {
            float v = data[k * k_stride];
            if constexpr (Hole::kMapsStream) v = hole.stream(batch, row, k, v);
            top = max(top, finite_bits(v));
        }
        return top;
    }
};

// The range of a streamed row from up to 128 samples: a good scale needs no more, and the guard
// catches the rows for which it is wrong. Only a row whose samples are all zero is read whole.
template <class Hole>
SM90_INLINE void sample_stream(const Prepare& a, const Hole& hole, int64_t first) {
    const bool along_k = a.stream_source.k_stride == 1;
    const int64_t index = along_k ? first / 32 : first;  // a warp, or a thread, per row
    if (index >= int64_t(a.rows) * a.stream_batches) return;
    const int batch = int(index / a.rows), number = int(index - int64_t(batch) * a.rows);
    const StreamRow<Hole> row = {hole, batch, number,
                                 a.stream_source.data + batch * a.stream_source.batch +
                                     number * a.stream_source.row_stride,
                                 a.stream_source.k_stride};
    const int lane = along_k ? threadIdx.x & 31 : 0, lanes = along_k ? 32 : 1;
    uint32_t top;
    if (along_k) {
        // Four runs of 128 bytes: few sectors, spread over the row.
        const int start = (a.depth >= 128 ? (lane >> 3) * (a.depth / 4) : (lane >> 3) * 32) +
                          (lane & 7) * 4;
        top = row.largest(start, 1, max(min(4, a.depth - start), 0));
        top = combine_warp(top, Larger());
    } else {
        top = row.largest(0, max(a.depth / 64, 1), min(a.depth, 64));
    }
    if (top == 0) {
        top = row.largest(lane, lanes, (a.depth - lane + lanes - 1) / lanes);
        if (along_k) top = combine_warp(top, Larger());
    }
    if (lane == 0) a.stream_exponent[index] = top == 0 ? kZeroRow : exponent_of(top);
}

// Blocks [0, split_blocks) split P; the others (first pass only) sample S.
template <int kPlanes, Division kDivision, class Hole>
__global__ void __launch_bounds__(1024, 1)
    prepare_kernel(const Prepare a, const Hole hole, int split_blocks) {
    if (kPlanes == 3 && *a.flag == 0) return;
    if (kPlanes == 2 && blockIdx.x == 0 && threadIdx.x == 0) *a.flag = 0;
    const int block = blockIdx.x;
    if (block >= split_blocks) {
        sample_stream(a, hole, int64_t(block - split_blocks) * blockDim.x + threadIdx.x);
    } else if constexpr (kDivision == Division::kBlockRows) {
        split_row<kPlanes, false>(a, hole, block / a.padded_columns, block % a.padded_columns);
    } else if constexpr (kDivision == Division::kWarpRows) {
        const int per_block = blockDim.x / 32, blocks = a.padded_columns / per_block;
        split_row<kPlanes, true>(a, hole, block / blocks,
                                 block % blocks * per_block + (threadIdx.x >> 5));
    } else {
        const int strips = a.padded_columns / 32;
        split_strip<kPlanes>(a, hole, block / strips, block % strips * 32);
    }
}

// target[batch][row][k] (rows of `pitch` floats) = source; for operands bulk copies cannot address.
__global__ void __launch_bounds__(256) align_kernel(Matrix source, float* target, int rows, int depth,
                                                    int64_t pitch, int64_t target_batch) {
    const int batch = blockIdx.z;
    const int inner = blockIdx.x * 256 + threadIdx.x;
    const bool along_k = source.k_stride == 1;
    const int inner_extent = along_k ? depth : rows, outer_extent = along_k ? rows : depth;
    const int64_t outer_stride = along_k ? source.row_stride : source.k_stride;
    if (inner >= inner_extent) return;
    for (int64_t o = blockIdx.y; o < outer_extent; o += gridDim.y)
        target[batch * target_batch + o * pitch + inner] =
            source.data[batch * source.batch + o * outer_stride + inner];
}

}  // namespace gemm90
