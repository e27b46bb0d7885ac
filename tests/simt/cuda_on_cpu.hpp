// What emitted SIMT CUDA C++ needs of CUDA, so that g++ compiles it as C++17 and a CPU runs it.
//
// For tests only. A thread is a fiber; it goes on until it has to meet others (barrier, shuffle,
// bulk copy, end), and which one goes on next is drawn at random, as is the order of the blocks.
// Kernels are compiled with -fsanitize=thread and parts of -fsanitize=undefined, whose callbacks are
// defined in runtime.cpp: every access is judged before it happens. `shim.py` rewrites what no macro
// can express (`<<< >>>`, `__shared__`, inline PTX). There are no atomics and no wgmma: no SIMT
// kernel uses them. Blocks of a cluster run together.
#include <math.h>
#include <stdint.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

#define __global__ static __attribute__((noinline))
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define SIMT_UNWATCHED __attribute__((no_sanitize_thread))

typedef struct CUstream_st* cudaStream_t;
enum cudaError_t { cudaSuccess, cudaErrorInvalidConfiguration = 9, cudaErrorLaunchFailure = 719 };
cudaError_t cudaGetLastError();
struct alignas(16) float4 { float x, y, z, w; };
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
struct alignas(16) uint4 { unsigned x, y, z, w; };
using std::max;
using std::min;
template <class T> T __ldg(const T* p) { return *p; }

namespace simt {

struct Index { unsigned x; };
Index thread_index();
Index block_index();

// Runs `call(body)` in every thread of the grid.
struct Launch { const char* name; unsigned cluster, blocks, threads; size_t shared; };
void run_grid(const Launch& launch, void (*call)(const void*), const void* body);

template <class Body>
void launch(const char* name, const Body& body, unsigned cluster, unsigned blocks,
            unsigned threads, size_t shared = 0, cudaStream_t = nullptr) {
    auto call = [](const void* b) SIMT_UNWATCHED { (*static_cast<const Body*>(b))(); };
    run_grid({name, cluster, blocks, threads, shared}, call, &body);
}

// The block's array that `tag` stands for; a null tag means the launch's dynamic shared memory.
void* shared_array(const void* tag, const char* name, size_t bytes, size_t element, size_t align);
template <class A> A& shared(const void* tag, const char* name, size_t align = alignof(A)) {
    using T = std::remove_all_extents_t<A>;
    return *static_cast<A*>(shared_array(tag, name, sizeof(A), sizeof(T), align));
}
template <class T> T* dynamic_shared(const char* name, size_t align = alignof(T)) {
    return static_cast<T*>(shared_array(nullptr, name, 0, 1, align));
}

// Meets the threads of `mask` in this warp and returns the bits that the lane `from` brought.
uint64_t meet(unsigned mask, uint64_t bits, unsigned from);
template <class T> T exchange(unsigned mask, T x, unsigned from) {
    uint64_t bits = 0;
    __builtin_memcpy(&bits, &x, sizeof(T));
    bits = meet(mask, bits, from);
    __builtin_memcpy(&x, &bits, sizeof(T));
    return x;
}
inline unsigned lane() { return thread_index().x % 32; }

// The barrier of a cluster in halves, and where the array at `p` of this block is in another one.
void cluster_arrive();
void cluster_wait();
void* in_block(const void* p, unsigned rank);

// Transaction barriers (PTX mbarrier) and the bulk copies that complete them.
void barrier_init(unsigned barrier, unsigned arrivals);
void barrier_arrive(unsigned barrier, unsigned expected_bytes);
void barrier_wait(unsigned barrier, unsigned parity);
void bulk_copy(unsigned target, const void* source, unsigned bytes, unsigned barrier);

// Copies by a thread (cp.async) that land when it waits for their group, and shared memory by address.
void thread_copy(unsigned target, const void* source, unsigned bytes);
void commit_copies();
void wait_copies(unsigned pending);
const void* at_address(unsigned address);

}  // namespace simt

#define cudaFuncSetAttribute(...) cudaSuccess
void simt_sync_threads(int line);
size_t __cvta_generic_to_shared(const void* p);
[[noreturn]] void __trap();

#define threadIdx (simt::thread_index())
#define blockIdx (simt::block_index())
#define __syncthreads() simt_sync_threads(__LINE__)

template <class T> T __shfl_sync(unsigned mask, T x, unsigned from, unsigned width = 32) {
    return simt::exchange(mask, x, simt::lane() / width * width + from % width);
}
template <class T> T __shfl_xor_sync(unsigned mask, T x, unsigned step) {
    return simt::exchange(mask, x, simt::lane() ^ step);
}
inline int __all_sync(unsigned mask, int holds) {
    for (unsigned step = 16; step > 0; step /= 2) holds &= __shfl_xor_sync(mask, holds, step);
    return holds;
}
template <class T> T __shfl_up_sync(unsigned mask, T x, unsigned step, unsigned width = 32) {
    const unsigned lane = simt::lane();
    return simt::exchange(mask, x, lane - (step <= lane % width ? step : 0));
}

inline float __uint_as_float(unsigned u) { float x; __builtin_memcpy(&x, &u, 4); return x; }
inline float __int_as_float(int i) { return __uint_as_float((unsigned)i); }
inline unsigned __float_as_uint(float x) { unsigned u; __builtin_memcpy(&u, &x, 4); return u; }
inline float rsqrtf(float x) { return (float)(1.0 / std::sqrt((double)x)); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }

// ------------------------------------------------------------------------------------- inline PTX

// A function is named after the text of its instructions: what is neither letter nor digit becomes
// an underscore, numbers of operands vanish. Parameters are the operands in order.

inline void ptx_cvt_f32_f16(float& y, unsigned short x) {
    _Float16 half;
    __builtin_memcpy(&half, &x, 2);
    y = (float)half;
}
inline void ptx_cvt_rn_f16_f32(unsigned short& y, float x) {
    const _Float16 half = (_Float16)x;
    __builtin_memcpy(&y, &half, 2);
}
// The last bit is wrong, as the instruction may have it; what needs more has to correct it.
inline void ptx_rcp_approx_ftz_f32(float& y, float x) {
    y = __uint_as_float(__float_as_uint(1.0f / x) ^ 1);
}
// Off by the last bits, as the hardware's approximations may be.
inline void ptx_ex2_approx_f32(float& y, float x) { y = exp2f(x) * (1.0f + 0x1p-22f); }
inline void ptx_ex2_approx_ftz_f32(float& y, float x) {
    ptx_ex2_approx_f32(y, x);
    if (fabsf(y) < 0x1p-126f) y = 0.0f;
}
inline void ptx_lg2_approx_ftz_f32(float& y, float x) {
    if (fabsf(x) < 0x1p-126f) x = 0.0f;
    y = log2f(x) + (fabsf(log2f(x)) < 1.0f ? 0x1p-22f : 0.0f);
}
inline void ptx_barrier_cluster_arrive_aligned_memory() { simt::cluster_arrive(); }
inline void ptx_barrier_cluster_wait_aligned_memory() { simt::cluster_wait(); }
template <class T> void ptx_mapa_u64(T*& there, T* p, int rank) {
    there = static_cast<T*>(simt::in_block(p, (unsigned)rank));
}
inline void ptx_mbarrier_init_shared_b64_1(unsigned barrier) { simt::barrier_init(barrier, 1); }
// Bulk copies see initialised barriers at once here.
inline void ptx_fence_mbarrier_init_release_cluster_memory() {}
inline void ptx_mbarrier_arrive_expect_tx_shared_b64(unsigned barrier, unsigned bytes) {
    simt::barrier_arrive(barrier, bytes);
}
inline void ptx_cp_async_bulk_shared_cluster_global_mbarrier_complete_tx_bytes(
    unsigned target, const void* source, unsigned bytes, unsigned barrier) {
    simt::bulk_copy(target, source, bytes, barrier);
}
inline void ptx_reg_pred_p_mbarrier_try_wait_parity_shared_b64_p_selp_u32_1_0_p(
    unsigned& done, unsigned barrier, unsigned parity) {
    simt::barrier_wait(barrier, parity);
    done = 1;
}

// ------------------------------------------------------------------------- tensor cores of a warp

inline void ptx_cp_async_cg_shared_global_16(unsigned target, const void* source, int bytes) {
    simt::thread_copy(target, source, (unsigned)bytes);
}
inline void ptx_cp_async_commit_group() { simt::commit_copies(); }
inline void ptx_cp_async_wait_group(int pending) { simt::wait_copies((unsigned)pending); }
inline void ptx_ldmatrix_sync_aligned_m8n8_x4_shared_b16(unsigned& a, unsigned& b, unsigned& c,
                                                         unsigned& d, unsigned address) {
    unsigned* const words[] = {&a, &b, &c, &d};
    for (unsigned m = 0; m < 4; m++) {
        const unsigned row = simt::exchange(~0u, address, m * 8 + simt::lane() / 4);
        *words[m] = static_cast<const unsigned*>(simt::at_address(row))[simt::lane() % 4];
    }
}
inline unsigned __clz(unsigned x) { return x ? __builtin_clz(x) : 32; }
inline void ptx_cvt_rn_bf16x2_f32(unsigned& packed, float high, float low) {
    auto narrow = [](float x) {
        const unsigned u = __float_as_uint(x);
        return (u & 0x7fffffffu) > 0x7f800000u ? 0x7fffu : (u + 0x7fffu + (u >> 16 & 1)) >> 16;
    };
    packed = narrow(low) | narrow(high) << 16;
}
inline void ptx_cvt_rn_f16x2_f32(unsigned& packed, float high, float low) {
    unsigned short a, b;
    ptx_cvt_rn_f16_f32(a, low);
    ptx_cvt_rn_f16_f32(b, high);
    packed = a | (unsigned)b << 16;
}
inline void ptx_cvt_rna_tf32_f32(unsigned& y, float x) {
    const unsigned u = __float_as_uint(x);
    y = (u & 0x7f800000u) == 0x7f800000u ? u : (u + 0x1000u) & ~0x1fffu;
}

namespace simt {

// What the tensor core makes of 16 (TF32: 8) products and an accumulator: all are aligned to the
// largest exponent, with two bits below its float32 ulp; the rest is cut off, and so is the result
// (Khattak & Mikaitis, arXiv 2512.07004). Exact in double otherwise.
inline float truncating_sum(const double* terms, int count) {
    double plain = 0, total = 0;
    int top = -200;
    for (int i = 0; i < count; i++) {
        plain += terms[i];
        if (terms[i] != 0 && std::isfinite(terms[i])) top = max(top, std::ilogb(terms[i]));
    }
    if (!std::isfinite(plain) || top == -200) return (float)plain;
    const double grain = std::ldexp(1.0, top - 25);
    for (int i = 0; i < count; i++) total += std::trunc(terms[i] / grain) * grain;
    if (total == 0) return 0;
    const double ulp = std::ldexp(1.0, max(std::ilogb(total) - 23, -149));
    return (float)(std::trunc(total / ulp) * ulp);
}

// d = a (16 x 2w words) * b (8 x 2w words, transposed) + c, by the lanes of a warp; kPer elements a word.
template <int kPer, class Value>
void warp_product(float* d, const unsigned (&a)[4], const unsigned (&b)[2], const float* c,
                  Value value) {
    const unsigned row = lane() / 4, column = lane() % 4 * 2;
    unsigned left[2][8], right[2][8];  // two rows of a, two columns of b: words 0..3 and 4..7
    for (unsigned h = 0; h < 2; h++)
        for (unsigned t = 0; t < 4; t++)
            for (unsigned half = 0; half < 2; half++) {
                left[h][half * 4 + t] = exchange(~0u, a[half * 2 + h], row * 4 + t);
                right[h][half * 4 + t] = exchange(~0u, b[half], (column + h) * 4 + t);
            }
    for (unsigned i = 0; i < 4; i++) {
        double terms[8 * kPer + 1];
        for (unsigned w = 0; w < 8; w++)
            for (int e = 0; e < kPer; e++)
                terms[w * kPer + e] = value(left[i / 2][w], e) * value(right[i % 2][w], e);
        terms[8 * kPer] = c[i];
        d[i] = truncating_sum(terms, 8 * kPer + 1);
    }
}

}  // namespace simt

#define SIMT_MMA(NAME, PER, VALUE)                                                                 \
    inline void NAME(float& d0, float& d1, float& d2, float& d3, unsigned a0, unsigned a1,         \
                     unsigned a2, unsigned a3, unsigned b0, unsigned b1, float c0, float c1,       \
                     float c2, float c3) {                                                         \
        float d[4];                                                                                \
        const float c[] = {c0, c1, c2, c3};                                                        \
        auto value = [](unsigned w, int e) -> double { return VALUE; };                            \
        simt::warp_product<PER>(d, {a0, a1, a2, a3}, {b0, b1}, c, value);                          \
        d0 = d[0], d1 = d[1], d2 = d[2], d3 = d[3];                                                \
    }
inline float simt_half(unsigned short bits) {
    float y;
    ptx_cvt_f32_f16(y, bits);
    return y;
}
SIMT_MMA(ptx_mma_sync_aligned_m16n8k16_row_col_f32_bf16_bf16_f32, 2, __uint_as_float((w >> 16 * e) << 16))
SIMT_MMA(ptx_mma_sync_aligned_m16n8k16_row_col_f32_f16_f16_f32, 2, simt_half((unsigned short)(w >> 16 * e)))
SIMT_MMA(ptx_mma_sync_aligned_m16n8k8_row_col_f32_tf32_tf32_f32, 1, __uint_as_float(w))
