// Host side of the products of small depth: `run` of gemm_sm90_launch.cuh, with `short_kernel` in place
// of gemm<Fast> for depths up to 128 without folds and slices.
#pragma once
#include <type_traits>
#include "gemm_sm90_launch.cuh"
#include "gemm_sm90_short.cuh"

namespace gemm90 {

// The fp16 product of a depth of kChunks.
template <int kChunks, bool kMajorK, class Epilogue>
inline cudaError_t launch_short(const CUtensorMap& stream_map, const CUtensorMap& plane_map, Args args,
                                const Epilogue& hole, int units, cudaStream_t queue) {
    using Smem = Short<kChunks>;
    args.row_blocks = (args.rows + Smem::kPanelRows - 1) / Smem::kPanelRows;
    args.column_tiles = (args.columns + Smem::kTile - 1) / Smem::kTile;
    const int64_t tiles = int64_t(args.batches) * args.row_blocks * args.column_tiles;
    const int run = int((tiles + units - 1) / units);
    const auto kernel = short_kernel<kMajorK, kChunks, Epilogue>;
    const cudaError_t status =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Smem::kBytes);
    if (status != cudaSuccess) return status;
    kernel<<<unsigned((tiles + run - 1) / run), Smem::kThreads, Smem::kBytes, queue>>>(
        stream_map, plane_map, args, hole, run);
    return cudaGetLastError();
}

// The fp16 product by the kernel for its depth: only that one is compiled if the hole knows the depth.
template <class Epilogue>
struct FastProduct<Epilogue, std::enable_if_t<Epilogue::kPartialWords == 0 && Epilogue::kSlices == 1 &&
                                              Epilogue::kDepth <= 2 * kChunk>> {
    template <bool kMajorK>
    static cudaError_t launch(const Plan& q, const CUtensorMap& stream_map, const CUtensorMap& plane_map,
                              const Args& args, const Epilogue& hole, int units, cudaStream_t queue) {
        constexpr int kDepth = Epilogue::kDepth;
        if constexpr (kDepth <= kChunk)
            if (kDepth > 0 || args.depth <= kChunk)
                return launch_short<1, kMajorK>(stream_map, plane_map, args, hole, units, queue);
        if constexpr (kDepth == 0 || kDepth > kChunk)
            if (kDepth > 0 || args.depth <= 2 * kChunk)
                return launch_short<2, kMajorK>(stream_map, plane_map, args, hole, units, queue);
        if constexpr (kDepth == 0)
            return launch_product<Fast, kMajorK>(q, stream_map, plane_map, args, hole, units, queue);
    }
};

}  // namespace gemm90
