// Host side of the Hopper convolution: tensor maps and the sequence of launches.
//
// A convolution takes a hole struct (its members are listed in unit_finish.cuh; a run of a row divides the
// output width, kWidth and the columns from line to line) and
//   conv90::run<Tile>(problem, hole, workspace, stream) -> cudaError_t
// Compile with -gencode arch=compute_90a,code=sm_90a; needs CUDA 12.0, no library.
//
// Launch protocol, all on one stream, no synchronisation, capturable in a CUDA graph:
//   conv_kernel   the sums and the hole
//   [fold]          only with a fold: merges the partial buffer, calls `finish`
// Outputs must not overlap inputs. Every extent, and every image's number of pixels, is below 2^31.
//
// Workspace (workspace_bytes; aligned to 256; contents need not survive between calls): 4 * words *
// slabs * extent bytes of partial results per image.
#pragma once
#include "conv_sm90_maps.cuh"
#include "fold_slabs.cuh"

namespace conv90 {

// Bytes of device memory that `run` needs; 256-byte aligned.
template <class Tile, class Epilogue>
inline size_t workspace_bytes(const Problem& p) {
    const Args a = args_of<Tile, Epilogue>(p, nullptr);
    return size_t(p.count) * a.partial_slabs * Epilogue::kPartialWords * a.partial_extent * 4;
}

// Enqueues the whole convolution. Returns the first CUDA error.
template <class Tile, class Epilogue>
inline cudaError_t run(const Problem& p, const Epilogue& hole, void* workspace, cudaStream_t queue) {
    constexpr int kRun = Epilogue::kRun / tiles::phases_of<Epilogue>(nullptr);
    static_assert(Tile::kWidth % kRun == 0 && Tile::kStep % kRun == 0, "a run lies in one line");
    if (Tile::kWidth + (Tile::kTaps - 1) * p.dilation[2] > Tile::kPitch ||
        (Tile::kTaps > 1 && p.stride[2] > 1))
        return cudaErrorInvalidValue;
    int device = 0, units = 0;
    PFN_cuTensorMapEncodeTiled_v12000 encode = nullptr;
    CUtensorMap images, weights;
    cudaError_t status = cudaGetDevice(&device);
    if (status == cudaSuccess)
        status = cudaDeviceGetAttribute(&units, cudaDevAttrMultiProcessorCount, device);
    if (status == cudaSuccess) status = sm90::encoder(&encode);
    if (status == cudaSuccess) status = image_map<Tile>(encode, &images, p);
    if (status == cudaSuccess) status = weight_map<Tile>(encode, &weights, p);
    const auto kernel = conv_kernel<Tile, Epilogue>;
    if (status == cudaSuccess)
        status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Tile::kBytes);
    if (status != cudaSuccess) return status;
    const Args args = args_of<Tile, Epilogue>(p, workspace);
    const int64_t pixels = int64_t(p.count) * args.tiles[0] * args.tiles[1] * args.tiles[2];
    const int64_t tiles = (pixels + Tile::kCluster - 1) / Tile::kCluster * args.row_blocks;
    const int grid = int(min(tiles, int64_t(units / Tile::kCluster))) * Tile::kCluster;
    kernel<<<grid, kThreads, Tile::kBytes, queue>>>(images, weights, args, hole);
    if ((status = cudaGetLastError()) != cudaSuccess) return status;
    return tiles::launch_fold(args, hole, p.count, queue);
}

}  // namespace conv90
