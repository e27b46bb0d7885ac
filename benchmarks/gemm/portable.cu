// One instantiation of the portable matrix products, for `bench_portable.py`: -DITEMS and -DLANES
// (sums of a thread), -DLAYOUT_A, -DLAYOUT_B, -DRUN choose it.
#include "gemm_fma.cuh"

using Handed = float;
using Tile = fma32::Tile<ITEMS, LANES>;
using fma32::Layout;

__device__ float to_float(float v) { return v; }
__device__ void store(float* p, float x) { *p = x; }

#include "holes.cuh"

template <class Hole>
int enqueue(const Call& c, void* space, void* stream) {
    const fma32::Problem p = {{static_cast<const float*>(c.x), c.x_row, c.x_k, c.x_batch},
                              {static_cast<const float*>(c.w), c.w_row, c.w_k, c.w_batch},
                              c.m, c.n, c.k, c.batches};
    Hole hole;
    static_cast<Base&>(hole) = {c.bias, c.out, c.m, c.n};
    return fma32::run<Tile, Layout::LAYOUT_A, Layout::LAYOUT_B>(p, hole, space,
                                                               static_cast<cudaStream_t>(stream));
}

extern "C" int64_t native_workspace(const Call* c) {
    const int64_t over_n = (c->n + Tile::kColumns) / 8 * int64_t(c->m);
    const int64_t over_m = (c->m + Tile::kRows) / 8 * int64_t(c->n);
    return c->batches * (over_n > over_m ? over_n : over_m) * 4 + 256;
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
