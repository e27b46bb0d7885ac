// What the units of the convolutions' benchmark share: problems, holes, checks, times.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <type_traits>
#include <vector>

#include "conv_sm90_launch.cuh"

struct Case {
    const char* name;
    int count, channels, rows;
    int in[3], taps[3], stride[3], before[3], dilation[3];
    int out(int i) const {
        return (in[i] + 2 * before[i] - (taps[i] - 1) * dilation[i] - 1) / stride[i] + 1;
    }
    int columns() const { return out(0) * out(1) * out(2); }
};

// Device memory of all cases; scale per image, factor and bias per row.
struct Memory {
    uint16_t *images, *weights;
    float *scale, *factor, *bias, *out, *folded;
    double* errors;
    void *space, *flushed;
};
constexpr size_t kFlushed = size_t(128) << 20, kSpace = size_t(64) << 20, kOut = size_t(9) << 30;
constexpr int kSamples = 1 << 14;

extern Memory memory;
extern bool timing;  // else checking
extern int wrong;

inline void check(cudaError_t status, const char* what) {
    if (status == cudaSuccess) return;
    printf("WRONG %s: %s\n", what, cudaGetErrorString(status));
    exit(1);
}

void fill(const Case& c, bool bf16);
// Largest error of sampled results in units of the sum of the terms' magnitudes; 1e30 where something was
// not written.
double error_of(const Case& c, bool bf16, bool rounded);
// The same of folds over pixels or rows, of what `out` holds.
double fold_error(const Case& c, bool over_n);

// y = max(sum * scale * factor + bias, 0).
template <class Type, int kWidth>
struct Affine {
    using Value = typename Type::Handed;
    static constexpr int kRun = kWidth, kPartialWords = 0;
    static constexpr bool kFoldsOverN = true;
    Memory at;
    int rows, columns;

    __device__ static float to_float(float v) { return v; }
    __device__ static float to_float(uint16_t v) {
        float x, unused;
        if constexpr (std::is_base_of_v<native90::Bfloat16, Type>)
            sm90::unpack_bf16(v, x, unused);
        else
            sm90::unpack_f16(v, x, unused);
        return x;
    }
    __device__ float result(int batch, int m, Value v) const {
        const float s = __ldg(at.scale + batch) * __ldg(at.factor + m);
        return fmaxf(to_float(v) * s + __ldg(at.bias + m), 0.0f);
    }
    __device__ void apply(int batch, int m, int n, const Value (&acc)[kRun], float*) const {
        struct alignas(kRun * 4 < 16 ? kRun * 4 : 16) Run {
            float at[kRun];
        } y;
#pragma unroll
        for (int v = 0; v < kRun; ++v) y.at[v] = result(batch, m, acc[v]);
        *reinterpret_cast<Run*>(at.out + (int64_t(batch) * rows + m) * columns + n) = y;
    }
    __device__ static void partial_identity(float*) {}
    __device__ static void partial_merge(float*, const float*) {}
    __device__ void finish(int, int, const float*) const {}
};

// Sums of those over pixels or rows.
template <class Type, int kWidth, bool kOverN>
struct Total : Affine<Type, kWidth> {
    using Base = Affine<Type, kWidth>;
    static constexpr int kPartialWords = 1;
    static constexpr bool kFoldsOverN = kOverN;
    __device__ void apply(int batch, int m, int, const typename Base::Value (&acc)[kWidth], float* p) const {
#pragma unroll
        for (int v = 0; v < kWidth; ++v) p[kOverN ? 0 : v] += Base::result(batch, m, acc[v]);
    }
    __device__ static void partial_identity(float* p) { p[0] = 0.0f; }
    __device__ static void partial_merge(float* p, const float* q) { p[0] += q[0]; }
    __device__ void finish(int batch, int index, const float* p) const {
        this->at.folded[int64_t(batch) * (kOverN ? this->rows : this->columns) + index] = p[0];
    }
};

inline conv90::Problem problem_of(const Case& c) {
    conv90::Problem p = {memory.images, memory.weights, c.rows, c.count, c.channels};
    for (int i = 0; i < 3; ++i) {
        p.in[i] = c.in[i], p.out[i] = c.out(i), p.taps[i] = c.taps[i];
        p.stride[i] = c.stride[i], p.before[i] = c.before[i], p.dilation[i] = c.dilation[i];
    }
    return p;
}

inline void judge(const Case& c, const char* tile, const char* what, double error, double most) {
    const bool fine = error <= most;
    wrong += !fine;
    printf("%-5s %-22s %-52s %-8s error %.1e\n", fine ? "ok" : "WRONG", c.name, tile, what, error);
}

template <class Tile, class Epilogue>
void enqueue(const Case& c, const Epilogue& hole) {
    const conv90::Problem p = problem_of(c);
    if (conv90::workspace_bytes<Tile, Epilogue>(p) > kSpace) check(cudaErrorMemoryAllocation, c.name);
    check(conv90::run<Tile>(p, hole, memory.space, 0), c.name);
}

// Median of ten, the caches cold.
template <class Tile, class Epilogue>
float milliseconds(const Case& c, const Epilogue& hole) {
    cudaEvent_t first, last;
    cudaEventCreate(&first), cudaEventCreate(&last);
    std::vector<float> times(10);
    for (float& time : times) {
        cudaMemsetAsync(memory.flushed, 1, kFlushed, 0);
        cudaEventRecord(first);
        enqueue<Tile>(c, hole);
        cudaEventRecord(last);
        check(cudaEventSynchronize(last), c.name);
        cudaEventElapsedTime(&time, first, last);
    }
    std::nth_element(times.begin(), times.begin() + 5, times.end());
    return times[5];
}

template <class Tile, int kRun>
void measure(const Case& c, const char* tile) {
    using T = typename Tile::Type;
    constexpr bool kBf16 = std::is_base_of_v<native90::Bfloat16, T>;
    constexpr bool kRounded = sizeof(typename T::Handed) == 2;
    const size_t bytes = size_t(c.count) * c.rows * c.columns() * 4;
    if (bytes > kOut) check(cudaErrorMemoryAllocation, c.name);
    fill(c, kBf16);
    check(cudaMemset(memory.out, 0xff, bytes), c.name);
    const Affine<T, kRun> hole = {memory, c.rows, c.columns()};
    enqueue<Tile>(c, hole);
    check(cudaDeviceSynchronize(), c.name);
    judge(c, tile, "sums", error_of(c, kBf16, kRounded), kRounded ? 2e-3 : 2e-6);
    if (timing) {
        const float ms = milliseconds<Tile>(c, hole);
        const double depth = double(c.taps[0]) * c.taps[1] * c.taps[2] * c.channels;
        printf("      %9.4f ms %7.1f TFLOP/s %7.1f GB/s of results, %d stages\n", ms,
               bytes / 4 * depth * 2 / ms * 1e-9, bytes / ms * 1e-6, Tile::kStages);
        return;
    }
    enqueue<Tile>(c, Total<T, kRun, true>{hole});
    judge(c, tile, "over n", fold_error(c, true), 1e-5);
    enqueue<Tile>(c, Total<T, kRun, false>{hole});
    judge(c, tile, "over m", fold_error(c, false), 1e-5);
}

#define MEASURE(c, run, type, ...) \
    measure<conv90::Tile<native90::type, __VA_ARGS__>, run>(c, #type ", " #__VA_ARGS__)
