// One instantiation of the native Hopper matrix product, for `bench_native.py`: -DTYPE, -DSOURCE,
// -DCOLUMNS, -DCTAS, -DLAYOUT_A, -DLAYOUT_B, -DRUN choose it.
#include <type_traits>

#include "native_sm90_launch.cuh"

using native90::Layout;
using Tile = native90::Tile<native90::TYPE, COLUMNS, CTAS>;
using Handed = Tile::Type::Handed;

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

__device__ float to_float(float v) { return v; }
__device__ float to_float(uint16_t v) {
    float x, unused;
    if constexpr (std::is_same_v<Tile::Type, native90::Bfloat16>)
        sm90::unpack_bf16(v, x, unused);
    else
        sm90::unpack_f16(v, x, unused);
    return x;
}

__device__ void store(float* p, float x) { *p = x; }
template <class Type = Tile::Type>
__device__ void store(uint16_t* p, float x) {
    *p = uint16_t(Type::pack(x, 0.0f));
}

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

template <class Hole>
int enqueue(const Call& c, void* space, void* stream) {
    const native90::Problem p = {{c.x, c.x_row, c.x_k, c.x_batch}, {c.w, c.w_row, c.w_k, c.w_batch},
                                 c.m, c.n, c.k, c.batches};
    Hole hole;
    static_cast<Base&>(hole) = {c.bias, c.out, c.m, c.n};
    return native90::run<Tile, SOURCE, Layout::LAYOUT_A, Layout::LAYOUT_B>(
        p, hole, space, static_cast<cudaStream_t>(stream));
}

}  // namespace

extern "C" int64_t native_workspace(const Call* c) {
    const native90::Problem p = {{c->x, c->x_row, c->x_k, c->x_batch}, {c->w, c->w_row, c->w_k, c->w_batch},
                                 c->m, c->n, c->k, c->batches};
    return int64_t(max(native90::workspace_bytes<Tile, Layout::LAYOUT_A, Layout::LAYOUT_B, SigmoidSum>(p),
                       native90::workspace_bytes<Tile, Layout::LAYOUT_A, Layout::LAYOUT_B, ColumnMax>(p)));
}

extern "C" int native_run(const Call* c, void* space, void* stream) {
    switch (c->hole) {
        case 0: return enqueue<Plain>(*c, space, stream);
        case 1: return enqueue<BiasGelu>(*c, space, stream);
        case 2: return enqueue<SigmoidSum>(*c, space, stream);
        case 3: return enqueue<ColumnMax>(*c, space, stream);
        default: return cudaErrorInvalidValue;
    }
}
