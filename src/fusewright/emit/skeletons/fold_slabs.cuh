// What follows a matrix product whose tiles were folded along one axis: the fold of their partial
// results, in a fixed order.
#pragma once
#include <stdint.h>

namespace tiles {

// Up to so many slabs one thread merges; of more, 128 threads a part each.
constexpr int kFewSlabs = 16;

// `a` has the members `partial` ([batch][slab][word][index]), `partial_slabs`, `partial_extent`.
// Merges the slabs of the partial buffer in a fixed tree and hands the result to the hole
// `finish(int batch, int index, const float* words)`. A block makes kWidth results, of kLanes parts.
template <int kWidth, int kLanes, class Epilogue, class Args>
__global__ void __launch_bounds__(kWidth * kLanes) fold_kernel(const Args a, const Epilogue hole) {
    constexpr int kWords = Epilogue::kPartialWords == 0 ? 1 : Epilogue::kPartialWords;
    __shared__ float shared[kLanes][kWidth][kWords];
    const int x = threadIdx.x % kWidth, y = threadIdx.x / kWidth;
    const int strips = (a.partial_extent + kWidth - 1) / kWidth;
    const int batch = blockIdx.x / strips, index = blockIdx.x % strips * kWidth + x;
    const float* source = a.partial + int64_t(batch) * a.partial_slabs * kWords * a.partial_extent;
    float p[kWords];
    Epilogue::partial_identity(p);
    if (index < a.partial_extent) {
#pragma unroll 8
        for (int s = y; s < a.partial_slabs; s += kLanes) {
            float q[kWords];
#pragma unroll
            for (int w = 0; w < kWords; ++w)
                q[w] = source[(int64_t(s) * kWords + w) * a.partial_extent + index];
            Epilogue::partial_merge(p, q);
        }
    }
#pragma unroll
    for (int w = 0; w < kWords; ++w) shared[y][x][w] = p[w];
    for (int half = kLanes / 2; half > 0; half >>= 1) {
        __syncthreads();
        if (y < half) Epilogue::partial_merge(shared[y][x], shared[y + half][x]);
    }
    if (y == 0 && index < a.partial_extent) hole.finish(batch, index, shared[0][x]);
}

// Enqueues the fold of a hole that has one.
template <class Epilogue, class Args>
inline cudaError_t launch_fold(const Args& a, const Epilogue& hole, int batches, cudaStream_t queue) {
    if constexpr (Epilogue::kPartialWords > 0) {
        const bool few = a.partial_slabs <= kFewSlabs;
        const int width = few ? 256 : 8;
        const unsigned blocks = unsigned((a.partial_extent + width - 1) / width) * batches;
        if (few) fold_kernel<256, 1><<<blocks, 256, 0, queue>>>(a, hole);
        else fold_kernel<8, 128><<<blocks, 1024, 0, queue>>>(a, hole);
    }
    return cudaGetLastError();
}

}  // namespace tiles
