// A stand-in for skeletons/sm90.cuh on the CPU: enough to parse the Hopper skeleton with a host
// compiler and to run its index arithmetic and splits. Conversions round to nearest even.
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <algorithm>
#include <vector>

#define __device__
#define __global__
#define __forceinline__ inline
#define __shared__
#define __grid_constant__
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define SM90_INLINE inline

using std::max;
using std::min;
struct float4 { float x, y, z, w; };
struct int4 { int x, y, z, w; };
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline void __syncthreads() {}
struct Dim { int x, y, z; };
// What a bulk copy goes by; sizes and boxes innermost first, strides in bytes.
struct CUtensorMap {
    const uint8_t* data;
    int rank, swizzle;  // bytes of a row of the box
    int64_t sizes[5], strides[5];
    int box[5], steps[5];
};
static Dim threadIdx, blockIdx, gridDim;
inline float __uint_as_float(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }
inline uint32_t __float_as_uint(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }
inline int __float_as_int(float f) { return int(__float_as_uint(f)); }
inline float __int_as_float(int i) { return __uint_as_float(uint32_t(i)); }
template <class T> T __shfl_xor_sync(unsigned, T v, int) { return v; }
template <class T> T __shfl_sync(unsigned, T v, int) { return v; }
inline bool __all_sync(unsigned, bool v) { return v; }
inline void __syncwarp() {}

namespace sm90 {

extern uint8_t shared[1 << 18];
extern uint32_t touched[64];  // addresses of the accesses of one lane, for the bank check
extern int touches;

inline void store_shared(uint32_t at, float x) {
    touched[touches++] = at;
    memcpy(shared + at, &x, 4);
}
inline void store_shared2(uint32_t at, float x, float y) {
    touched[touches++] = at;
    memcpy(shared + at, &x, 4), memcpy(shared + at + 4, &y, 4);
}
// A store of four matrices takes all lanes of a warp: kept per lane until `commit_matrices`.
struct Matrices {
    uint32_t at, part[4];
};
extern std::vector<Matrices> kept_matrices[32];
inline void store_matrices(uint32_t at, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
    kept_matrices[threadIdx.x & 31].push_back({at, {a, b, c, d}});
}
inline void commit_matrices() {
    for (size_t i = 0; i < kept_matrices[0].size(); ++i)
        for (int m = 0; m < 4; ++m)
            for (int lane = 0; lane < 32; ++lane)
                memcpy(shared + kept_matrices[m * 8 + lane / 4][i].at + lane % 4 * 4,
                       &kept_matrices[lane][i].part[m], 4);
    for (auto& k : kept_matrices) k.clear();
}
inline float load_shared(uint32_t at) {
    touched[touches++] = at;
    float v;
    memcpy(&v, shared + at, 4);
    return v;
}
template <int n>
inline void load_shared_run(uint32_t at, float (&v)[n]) {
    touched[touches++] = at;
    memcpy(v, shared + at, 4 * n);
}
inline float4 load_shared4(uint32_t at) {
    touched[touches++] = at;
    float4 v;
    memcpy(&v, shared + at, 16);
    return v;
}
inline uint32_t pack_f16(float x, float y) {
    const _Float16 v[2] = {(_Float16)x, (_Float16)y};
    uint32_t r;
    memcpy(&r, v, 4);
    return r;
}
inline void unpack_f16(uint32_t r, float& x, float& y) {
    _Float16 v[2];
    memcpy(v, &r, 4);
    x = v[0], y = v[1];
}
inline uint32_t to_bf16(float x) {
    const uint32_t u = __float_as_uint(x);
    return (u & 0x7fffffffu) > 0x7f800000u ? 0x7fffu : (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
}
inline uint32_t pack_bf16(float x, float y) { return to_bf16(x) | to_bf16(y) << 16; }
inline void unpack_bf16(uint32_t v, float& x, float& y) {
    x = __uint_as_float(v << 16), y = __uint_as_float(v & 0xffff0000u);
}
inline float power_of_two(int e) { return __int_as_float((e + 127) << 23); }
inline float scale_by(float x, int e) { return ldexpf(x, e); }
inline uint32_t shared_address(const void*) { return 0; }
inline void barrier_init(uint32_t, uint32_t) {}
inline void barrier_init_fence() {}
inline void barrier_expect(uint32_t, uint32_t) {}
inline void barrier_arrive(uint32_t) {}
inline void barrier_arrive_at(uint32_t, uint32_t) {}
inline void barrier_wait(uint32_t, uint32_t) {}
inline uint32_t cluster_rank() { return 0; }
inline void cluster_sync() {}
inline void group_sync(uint32_t) {}
inline void prefetch_map(const CUtensorMap*) {}
inline void prefetch(const void*) {}
// Where a swizzle of rows of `width` bytes puts the byte of this address.
inline uint32_t swizzled(uint32_t at, int width) {
    return at ^ (at >> 7 & (width / 16 - 1)) << 4;
}
// A bulk copy of 16-bit elements: the box's lines one after the other, zeros from outside.
inline void copy_lines(uint32_t target, const CUtensorMap* map, const int (&first)[5]) {
    int at[5] = {}, lines = 1;
    for (int i = 1; i < map->rank; ++i) lines *= (map->box[i] + map->steps[i] - 1) / map->steps[i];
    for (int line = 0; line < lines; ++line) {
        bool inside = true;
        int64_t from = 0;
        for (int i = 1, rest = line; i < map->rank; ++i) {
            const int count = (map->box[i] + map->steps[i] - 1) / map->steps[i];
            at[i] = first[i] + rest % count * map->steps[i], rest /= count;
            inside = inside && at[i] >= 0 && at[i] < map->sizes[i];
            from += at[i] * map->strides[i];
        }
        for (int e = 0; e < map->box[0]; ++e) {
            const int x = first[0] + e;
            uint16_t v = 0;
            if (inside && x >= 0 && x < map->sizes[0]) memcpy(&v, map->data + from + 2 * x, 2);
            memcpy(shared + swizzled(target + line * map->swizzle + 2 * e, map->swizzle), &v, 2);
        }
    }
}
inline void copy_box(uint32_t target, const CUtensorMap* map, int x, int y, int z, uint32_t) {
    copy_lines(target, map, {x, y, z});
}
inline void copy_box_multicast(uint32_t target, const CUtensorMap* map, int x, int y, int z, uint32_t b,
                               uint16_t) {
    copy_box(target, map, x, y, z, b);
}
template <int> void registers_release() {}
template <int> void registers_acquire() {}
inline uint64_t operand_descriptor(uint32_t a) { return a >> 4; }
inline void mma_fence() {}
inline void mma_commit() {}
template <int> void mma_wait() {}
template <int n> void pin(float (&)[n]) {}
inline void forget(uint32_t&) {}
inline uint64_t transposed_descriptor(uint32_t a) { return a >> 4; }
template <bool, bool, int n> void mma_shared_f16(float (&)[n], uint64_t, uint64_t, int) {}
template <bool, bool, int n> void mma_shared_bf16(float (&)[n], uint64_t, uint64_t, int) {}
template <int n> void mma_shared_tf32(float (&)[n], uint64_t, uint64_t, int) {}
template <bool, int n> void mma_f16(float (&)[n], const uint32_t*, uint64_t) {}
template <bool> void mma_bf16(float (&)[64], const uint32_t*, uint64_t) {}

}  // namespace sm90
