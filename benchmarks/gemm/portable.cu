// One instantiation of the portable matrix products, for `bench_portable.py`. With -DTYPE that of
// gemm_mma.cuh, -DFORMAT_A, -DFORMAT_B; else that of gemm_fma.cuh, -DITEMS and -DLANES (sums of a
// thread), -DLAYOUT_A, -DLAYOUT_B. -DRUN: columns that the hole takes at once.
#ifdef TYPE
#include "gemm_mma.cuh"
using Handed = mma80::TYPE::Handed;
using Problem = tiles::Problem;
constexpr bool kHalf = std::is_same_v<mma80::TYPE, mma80::Float16>;
__device__ float to_float(uint16_t v) {
    float x;
    if (kHalf)
        asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(v));
    else
        x = tiles::bf16_value(v);
    return x;
}
__device__ void store(uint16_t* p, float x) {
    *p = uint16_t(kHalf ? tiles::pack_f16(x, 0.0f) : tiles::pack_bf16(x, 0.0f));
}
#else
#include "gemm_fma.cuh"
using Handed = float;
using Problem = fma32::Problem;
#endif
__device__ float to_float(float v) { return v; }
__device__ void store(float* p, float x) { *p = x; }

#include "holes.cuh"

template <class Hole>
int enqueue(const Call& c, void* space, void* stream) {
    const Problem p = {{static_cast<const float*>(c.x), c.x_row, c.x_k, c.x_batch},
                       {static_cast<const float*>(c.w), c.w_row, c.w_k, c.w_batch},
                       c.m, c.n, c.k, c.batches};
    Hole hole;
    static_cast<Base&>(hole) = {c.bias, c.out, c.m, c.n};
    const cudaStream_t queue = static_cast<cudaStream_t>(stream);
#ifdef TYPE
    return mma80::run<mma80::TYPE, FORMAT_A, FORMAT_B>(p, hole, space, queue);
#else
    using fma32::Layout;
    return fma32::run<fma32::Tile<ITEMS, LANES>, Layout::LAYOUT_A, Layout::LAYOUT_B>(p, hole, space, queue);
#endif
}

// Enough for any tile: partial results of folds in slabs of 8 rows or columns, copies of 3 planes.
extern "C" int64_t native_workspace(const Call* c) {
    const int64_t over_n = (c->n + 128) / 8 * int64_t(c->m), over_m = (c->m + 128) / 8 * int64_t(c->n);
    const int64_t copies = (c->m + c->n) * int64_t(c->k + 8) * 6;
    return c->batches * ((over_n > over_m ? over_n : over_m) * 4 + copies) + 1024;
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
