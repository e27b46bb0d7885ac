// What a Hopper convolution's kernel is given: the problem, its tensor maps, its arguments.
#pragma once
#include "conv_sm90.cuh"
#include "tensor_map.cuh"

namespace conv90 {

// Axes are depth, height, width; strides along them are 1 to 8 and those beyond 1 take kTaps == 1.
struct Problem {
    const void* images;   // [count][in[0]][in[1]][in[2]][channels], 16-bit, aligned to 16 bytes
    const void* weights;  // [rows][taps[0]][taps[1]][taps[2]][channels], likewise
    int rows, count, channels;  // channels: a multiple of 8
    int in[3], out[3], taps[3], stride[3], before[3], dilation[3];
};

inline int ceil_div(int x, int y) { return (x + y - 1) / y; }

template <class Tile>
inline cudaError_t encode_map(PFN_cuTensorMapEncodeTiled_v12000 encode, CUtensorMap* map, const void* data,
                              int rank, const cuuint64_t* sizes, const cuuint64_t* strides,
                              const cuuint32_t* box, const cuuint32_t* steps) {
    constexpr auto kSwizzle = Tile::kChunk == 128  ? CU_TENSOR_MAP_SWIZZLE_128B
                              : Tile::kChunk == 64 ? CU_TENSOR_MAP_SWIZZLE_64B
                                                   : CU_TENSOR_MAP_SWIZZLE_32B;
    const CUresult status =
        encode(map, CU_TENSOR_MAP_DATA_TYPE_UINT16, cuuint32_t(rank), const_cast<void*>(data), sizes,
               strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, kSwizzle,
               CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return status == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

// (channel, width, height, depth, image); boxes of every stride-th pixel.
template <class Tile>
inline cudaError_t image_map(PFN_cuTensorMapEncodeTiled_v12000 encode, CUtensorMap* map, const Problem& p) {
    const int extents[3] = {Tile::kDepth, Tile::kHeight, Tile::kPitch};
    cuuint64_t sizes[5] = {cuuint64_t(p.channels), 1, 1, 1, cuuint64_t(p.count)}, strides[4];
    cuuint32_t box[5] = {Tile::kChunk / 2, 1, 1, 1, 1}, steps[5] = {1, 1, 1, 1, 1};
    cuuint64_t pitch = cuuint64_t(p.channels) * 2;
    for (int i = 1; i <= 3; ++i) {
        const int axis = 3 - i;
        strides[i - 1] = pitch;
        sizes[i] = cuuint64_t(p.in[axis]);
        steps[i] = cuuint32_t(p.stride[axis]);
        box[i] = cuuint32_t((extents[axis] - 1) * p.stride[axis] + 1);
        pitch *= sizes[i];
    }
    strides[3] = pitch;
    return encode_map<Tile>(encode, map, p.images, 5, sizes, strides, box, steps);
}

// (channel, row, tap); boxes of one tap and a CTA's part of the rows.
template <class Tile>
inline cudaError_t weight_map(PFN_cuTensorMapEncodeTiled_v12000 encode, CUtensorMap* map, const Problem& p) {
    const cuuint64_t taps = cuuint64_t(p.taps[0]) * p.taps[1] * p.taps[2], tap = cuuint64_t(p.channels) * 2;
    const cuuint64_t sizes[3] = {cuuint64_t(p.channels), cuuint64_t(p.rows), taps};
    const cuuint64_t strides[2] = {taps * tap, tap};
    const cuuint32_t box[3] = {Tile::kChunk / 2, Tile::kRows / Tile::kCluster, 1}, steps[3] = {1, 1, 1};
    return encode_map<Tile>(encode, map, p.weights, 3, sizes, strides, box, steps);
}

template <class Tile, class Epilogue>
inline Args args_of(const Problem& p, void* workspace) {
    const int extents[3] = {Tile::kDepth, Tile::kHeight, Tile::kWidth};
    Args a = {};
    a.rows = p.rows, a.columns = p.out[0] * p.out[1] * p.out[2], a.count = p.count;
    a.row_blocks = ceil_div(p.rows, Tile::kRows);
    for (int i = 0; i < 3; ++i) {
        a.tiles[i] = ceil_div(p.out[i], extents[i]);
        a.out[i] = p.out[i], a.stride[i] = p.stride[i], a.before[i] = p.before[i];
        a.dilation[i] = p.dilation[i], a.taps[i] = p.taps[i];
    }
    a.groups = ceil_div(p.taps[2], Tile::kTaps);
    a.chunks = ceil_div(p.channels, Tile::kChunk / 2);
    a.partial = static_cast<float*>(workspace);
    if (Epilogue::kPartialWords > 0) {
        constexpr int kWidth = Finish<Tile, Epilogue>::kWidth;
        const int tiles = a.tiles[0] * a.tiles[1] * a.tiles[2];
        a.partial_slabs = Epilogue::kFoldsOverN ? tiles * (Tile::kColumns / kWidth) : ceil_div(p.rows, kFoldRows);
        a.partial_extent = Epilogue::kFoldsOverN ? p.rows : a.columns;
    }
    return a;
}

}  // namespace conv90
