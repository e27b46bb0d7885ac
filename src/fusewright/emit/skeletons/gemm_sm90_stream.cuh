// The streamed operand on its way from shared float32 to 16-bit fragments in registers.
#pragma once
#include "gemm_sm90_config.cuh"

namespace gemm90 {

// Row of a warp's 16 that fragment row `g` (0..7; `g + 8` likewise) stands for. K-major: the order
// makes the eight lanes of a 16-byte access phase touch all banks of swizzled rows.
template <bool kMajorK>
SM90_INLINE int fragment_row(int g) {
    return kMajorK ? (g & 1) * 4 + (g >> 1) : g;
}

// The thread's eight values of one k16 step: v[0..3] of row g, v[4..7] of row g + 8. K-major takes
// four neighbours along K (the planes are stored in the matching order), otherwise k = 2t, 2t+1,
// 2t+8, 2t+9 as the instruction has it.
template <bool kMajorK>
struct StreamReader {
    uint32_t offset;

    SM90_INLINE StreamReader(int group, int warp, int lane) {
        const int g = lane >> 2, t = lane & 3;
        if constexpr (kMajorK) {
            const int row = warp * 16 + fragment_row<true>(g);
            offset = group * kGroupBytes + row * 128 + ((t ^ (row & 7)) << 4);
        } else {
            const int box = warp >> 1, chunk = (warp & 1) * 4 + (g >> 2);
            offset = group * kGroupBytes + box * (kGroupBytes / 2) + 2 * t * 128 +
                     ((chunk ^ (2 * t)) << 4) + (g & 3) * 4;
        }
    }

    SM90_INLINE void read(uint32_t stage, int step, float (&v)[8]) const {
        if constexpr (kMajorK) {
            const uint32_t at = stage + (step >> 1) * (kGroupBytes / 2) + (offset ^ ((step & 1) << 6));
            const float4 x = sm90::load_shared4(at), y = sm90::load_shared4(at + 8 * 128);
            v[0] = x.x, v[1] = x.y, v[2] = x.z, v[3] = x.w;
            v[4] = y.x, v[5] = y.y, v[6] = y.z, v[7] = y.w;
        } else {
            // k, k + 1, k + 8, k + 9; the swizzle flips bit 4 for odd k; g + 8 flips chunk bit 1.
            const uint32_t even = stage + step * 16 * 128 + offset;
            const uint32_t odd = stage + step * 16 * 128 + (offset ^ 16) + 128;
            const uint32_t at[4] = {even, odd, even + 8 * 128, odd + 8 * 128};
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                v[i] = sm90::load_shared(at[i]);
                v[4 + i] = sm90::load_shared(at[i] ^ 32);
            }
        }
    }
};

// Fragments of one chunk: term 0 is the largest.
template <class Scheme>
struct Fragments {
    uint32_t term[Scheme::kPlanes][4][4];
};

SM90_INLINE void split(float x, float y, uint32_t& hi, uint32_t& lo) {
    float hx, hy;
    hi = sm90::pack_f16(x, y);
    sm90::unpack_f16(hi, hx, hy);
    lo = sm90::pack_f16(x - hx, y - hy);
}

// Exact for 2^-110 <= |x| <= 2^127; the lower terms of an infinity or NaN are 0.
SM90_INLINE void split(float x, float y, uint32_t& hi, uint32_t& mid, uint32_t& lo) {
    float hx, hy, mx, my;
    hi = sm90::pack_bf16(x, y);
    sm90::unpack_bf16(hi, hx, hy);
    const float rx = fabsf(x) <= 3.4028235e38f ? x - hx : 0.0f;
    const float ry = fabsf(y) <= 3.4028235e38f ? y - hy : 0.0f;
    mid = sm90::pack_bf16(rx, ry);
    sm90::unpack_bf16(mid, mx, my);
    lo = sm90::pack_bf16(rx - mx, ry - my);
}

// One chunk's values of this thread, as read: [k16 step][row g: 0..3, row g + 8: 4..7].
struct Raw {
    float v[4][8];
};

template <bool kMajorK>
SM90_INLINE void load_raw(const StreamReader<kMajorK>& reader, uint32_t stage, Raw& raw) {
#pragma unroll
    for (int s = 0; s < 4; ++s) reader.read(stage, s, raw.v[s]);
}

// k of v[i] of step s, from the chunk's first.
template <bool kMajorK>
SM90_INLINE int k_of(int s, int i, int lane) {
    const int t = lane & 3;
    return s * 16 + (kMajorK ? 4 * t + i : 2 * t + (i & 1) + 8 * (i >> 1));
}

// The hole's `stream` in front of the split, for the thread's two rows.
template <class Hole, bool kMajorK>
struct StreamMap {
    const Hole& hole;
    const Args& args;
    int batch, rows[2];
    int k, last;  // where the next chunk and the last one begin; behind that one nothing is used

    SM90_INLINE void start(const Place& at, const int (&own)[2]) {
        if constexpr (Hole::kMapsStream) {
            batch = at.batch, rows[0] = own[0], rows[1] = own[1];
            k = at.chunk * kChunk, last = (at.chunk + at.chunks - 1) * kChunk;
        }
    }

    SM90_INLINE void apply(Raw& raw, int lane) {
        if constexpr (Hole::kMapsStream) {
#pragma unroll
            for (int s = 0; s < 4; ++s)
#pragma unroll
                for (int i = 0; i < 8; ++i) {
                    const int at = k + k_of<kMajorK>(s, i & 3, lane), row = rows[i >> 2];
                    float& v = raw.v[s][i];
                    if constexpr (Hole::kWholeStream) {
                        v = hole.stream(batch, row, at, v);
                    } else {
                        const bool inside = at < args.depth && row < args.rows;
                        v = hole.stream(batch, min(row, args.rows - 1), min(at, args.depth - 1), v);
                        v = inside ? v : 0.0f;
                    }
                }
            k = min(k + kChunk, last);
        }
    }
};

template <class Scheme>
SM90_INLINE void convert(const Raw& raw, const float (&scale)[2], Fragments<Scheme>& f) {
#pragma unroll
    for (int s = 0; s < 4; ++s) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {  // register i: row g + 8 * (i & 1), K pair i / 2
            const int at = 4 * (i & 1) + 2 * (i >> 1);
            const float x = raw.v[s][at] * scale[i & 1], y = raw.v[s][at + 1] * scale[i & 1];
            if constexpr (Scheme::kPlanes == 2) {
                split(x, y, f.term[0][s][i], f.term[1][s][i]);
            } else {
                split(x, y, f.term[0][s][i], f.term[1][s][i], f.term[2][s][i]);
            }
        }
    }
}

}  // namespace gemm90
