// One instantiation of the native Hopper matrix product, for `bench_native.py`: -DTYPE, -DSOURCE,
// -DCOLUMNS, -DCTAS, -DLAYOUT_A, -DLAYOUT_B, -DRUN choose it.
#include <type_traits>

#include "native_sm90_launch.cuh"

using native90::Layout;
using Tile = native90::Tile<native90::TYPE, COLUMNS, CTAS>;
using Handed = Tile::Type::Handed;

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

}  // namespace

#include "holes.cuh"

namespace {

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
