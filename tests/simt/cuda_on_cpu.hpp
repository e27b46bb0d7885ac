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
using std::max;
using std::min;

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
