// The calls and the holes of the products' benchmarks. Before it: `Handed`, how a hole sees a sum,
// RUN, how many columns it takes at once, and `to_float` and `store` of Handed.
#pragma once
#include <stdint.h>

// x: (m, k), w: (n, k), strides in elements, batch stride 0: shared. out: (batches, m, n), or with a
// fold the folded axis left out, in float32.
struct Call {
    const void *x, *w;
    const Handed* bias;
    void* out;
    int64_t x_row, x_k, x_batch, w_row, w_k, w_batch;
    int32_t m, n, k, batches, hole, reserved;
};

namespace {

template <class T>
struct alignas(sizeof(T) * RUN < 16 ? sizeof(T) * RUN : 16) Vector {
    T at[RUN];
};

struct Base {
    using Value = Handed;
    static constexpr int kRun = RUN;
    const Handed* bias;
    void* out;
    int64_t m, n;

    __device__ void biased(int j, const Handed (&acc)[RUN], float (&value)[RUN]) const {
        const Vector<Handed> b = *reinterpret_cast<const Vector<Handed>*>(bias + j);
#pragma unroll
        for (int v = 0; v < RUN; ++v) value[v] = to_float(acc[v]) + to_float(b.at[v]);
    }
    __device__ void put(int b, int i, int j, const Vector<Handed>& x) const {
        *reinterpret_cast<Vector<Handed>*>(static_cast<Handed*>(out) + (b * m + i) * n + j) = x;
    }
};

template <int kWords, bool kOverN>
struct Fold : Base {
    static constexpr int kPartialWords = kWords;
    static constexpr bool kFoldsOverN = kOverN;
    __device__ void finish(int batch, int index, const float* p) const {
        static_cast<float*>(out)[batch * (kOverN ? m : n) + index] = p[0];
    }
    __device__ static void partial_identity(float* p) { p[0] = kOverN ? 0.0f : -INFINITY; }
    __device__ static void partial_merge(float* p, const float* q) {
        p[0] = kOverN ? p[0] + q[0] : fmaxf(p[0], q[0]);
    }
};

struct Plain : Fold<0, true> {
    __device__ void apply(int b, int i, int j, const Handed (&acc)[RUN], float*) const {
        put(b, i, j, *reinterpret_cast<const Vector<Handed>*>(acc));
    }
};

struct BiasGelu : Fold<0, true> {
    __device__ void apply(int b, int i, int j, const Handed (&acc)[RUN], float*) const {
        float value[RUN];
        biased(j, acc, value);
        Vector<Handed> x;
#pragma unroll
        for (int v = 0; v < RUN; ++v)
            store(x.at + v, value[v] * 0.5f * (1.0f + erff(value[v] * 0.70710678118654752f)));
        put(b, i, j, x);
    }
};

struct SigmoidSum : Fold<1, true> {
    __device__ void apply(int, int, int j, const Handed (&acc)[RUN], float* p) const {
        float value[RUN];
        biased(j, acc, value);
#pragma unroll
        for (int v = 0; v < RUN; ++v) p[0] += 1.0f / (1.0f + expf(-value[v]));
    }
};

struct ColumnMax : Fold<1, false> {
    __device__ void apply(int, int, int j, const Handed (&acc)[RUN], float* p) const {
        float value[RUN];
        biased(j, acc, value);
#pragma unroll
        for (int v = 0; v < RUN; ++v) p[v] = fmaxf(p[v], value[v]);
    }
};

}  // namespace
