// Runs the SIMT CUDA kernels of an emitted file on the CPU: every thread of a block is a fiber.
//
// Test-only. Fibers run one after the other and switch at __syncthreads and at warp shuffles; the
// order alternates between rounds, so that a missing barrier shows. Shared memory is filled with
// NaN before each block. A barrier that not all threads reach, and a trap, are reported.
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <vector>

#define __CUDACC_RTC__ 1
#define __global__ static
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(n)
// One section holds all shared variables: its bounds come from the linker.
#define __shared__ static __attribute__((section("simt_shared"), used))
#define threadIdx simt::thread
#define blockIdx simt::block
#define __syncthreads simt::sync_block
#define __shfl_xor_sync simt::shuffle_xor
#define __shfl_up_sync simt::shuffle_up
#define __shfl_sync simt::shuffle
#define __trap simt::trap

extern char __start_simt_shared[] __attribute__((weak));
extern char __stop_simt_shared[] __attribute__((weak));

namespace simt {

// A pointer that converts to whatever a kernel's parameter is.
struct Pointer {
    void* p;
    template <class T> operator T*() const { return (T*)p; }
};

struct Index { unsigned x; };
static Index thread, block;

struct Fiber {
    ucontext_t context;
    std::vector<char> stack = std::vector<char>(128 << 10);
    bool done = false;
    long barriers = 0, shuffles = 0;
    uint64_t slot[2] = {0, 0};
};

static std::vector<Fiber> fibers;
static ucontext_t scheduler;
static unsigned current, count;
static const char* failure = nullptr;
static const std::function<void()>* body;

static void yield() { swapcontext(&fibers[current].context, &scheduler); }

static void stop(const char* why) {
    if (!failure) failure = why;
    fibers[current].done = true;
    for (;;) yield();
}

// Waits until `reached` holds for the threads [first, last).
template <class Reached> static void wait(unsigned first, unsigned last, Reached reached) {
    for (;;) {
        bool all = true;
        for (unsigned t = first; t < last; t++) {
            if (reached(fibers[t])) continue;
            all = false;
            if (fibers[t].done) stop("a thread ended before a barrier that others wait at");
        }
        if (all) return;
        yield();
    }
}

static inline void sync_block() {
    const long mine = ++fibers[current].barriers;
    wait(0, count, [=](const Fiber& f) { return f.barriers >= mine; });
}

// The value that the thread `from` of the same warp gives.
template <class T> static inline T exchange(T value, unsigned from) {
    Fiber& me = fibers[current];
    const long mine = ++me.shuffles;
    std::memcpy(&me.slot[mine % 2], &value, sizeof value);
    const unsigned warp = current / 32 * 32;
    wait(warp, warp + 32 < count ? warp + 32 : count,
         [=](const Fiber& f) { return f.shuffles >= mine; });
    T out;
    std::memcpy(&out, &fibers[from].slot[mine % 2], sizeof out);
    return out;
}

template <class T> static inline T shuffle_xor(unsigned, T value, int step) {
    return exchange(value, current ^ (unsigned)step);
}

template <class T> static inline T shuffle_up(unsigned, T value, int step, int width) {
    return exchange(value, current % width < (unsigned)step ? current : current - step);
}

template <class T> static inline T shuffle(unsigned, T value, int lane, int width) {
    return exchange(value, current / width * width + lane % width);
}

static inline void trap() { stop("trap"); }

static void enter() {
    (*body)();
    fibers[current].done = true;
    for (;;) yield();
}

static void run_block(unsigned threads) {
    count = threads;
    if (fibers.size() < threads) fibers.resize(threads);
    for (unsigned t = 0; t < threads; t++) {
        Fiber& f = fibers[t];
        f.done = false;
        f.barriers = f.shuffles = 0;
        getcontext(&f.context);
        f.context.uc_stack.ss_sp = f.stack.data();
        f.context.uc_stack.ss_size = f.stack.size();
        f.context.uc_link = nullptr;
        makecontext(&f.context, enter, 0);
    }
    bool live = true;
    for (int round = 0; live && !failure; round++) {
        live = false;
        for (unsigned k = 0; k < threads; k++) {
            current = round % 2 ? threads - 1 - k : k;
            if (fibers[current].done) continue;
            live = true;
            thread.x = current;
            swapcontext(&scheduler, &fibers[current].context);
        }
    }
}

// Runs the kernel; returns 0, 1 after a trap, 2 after a barrier that some threads missed.
static int launch(unsigned blocks, unsigned threads, const std::function<void()>& kernel) {
    body = &kernel;
    failure = nullptr;
    for (unsigned b = 0; b < blocks && !failure; b++) {
        block.x = b;
        if (__start_simt_shared)
            std::memset(__start_simt_shared, 0xff, __stop_simt_shared - __start_simt_shared);
        run_block(threads);
    }
    if (failure) std::fprintf(stderr, "simt: %s\n", failure);
    return !failure ? 0 : std::strcmp(failure, "trap") ? 2 : 1;
}

static inline float half_to_float(uint16_t h) {
    const int exponent = h >> 10 & 31, mantissa = h & 1023;
    const float sign = h >> 15 ? -1.0f : 1.0f;
    if (exponent == 31) return mantissa ? NAN : sign * INFINITY;
    return sign * (exponent ? std::ldexp(1024.0f + mantissa, exponent - 25)
                            : std::ldexp((float)mantissa, -24));
}

static inline uint16_t float_to_half(float x) {
    const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
    const float a = std::fabs(x);
    if (std::isnan(x)) return 0x7e00;
    if (a >= 65520.0f) return sign | 0x7c00;
    int exponent;
    std::frexp(a, &exponent);
    exponent = exponent < -13 ? -13 : exponent;  // denormals share the lowest exponent
    const int units = (int)std::nearbyint(std::ldexp(a, 11 - exponent));
    return sign | (uint16_t)(units < 1024 ? units : ((exponent + 13) << 10) + units);
}

}  // namespace simt

static inline float __int_as_float(int i) { float x; std::memcpy(&x, &i, 4); return x; }
static inline float __uint_as_float(unsigned i) { float x; std::memcpy(&x, &i, 4); return x; }
static inline unsigned __float_as_uint(float x) { unsigned i; std::memcpy(&i, &x, 4); return i; }
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
