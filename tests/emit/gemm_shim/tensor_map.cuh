// A stand-in for skeletons/tensor_map.cuh on the CPU: a map is what it was made of, and what the driver
// would refuse is refused.
#pragma once
#include "sm90.cuh"

using cudaError_t = int;
using CUresult = int;
using cuuint32_t = uint32_t;
using cuuint64_t = uint64_t;
constexpr int cudaSuccess = 0, cudaErrorInvalidValue = 1, CUDA_SUCCESS = 0;
constexpr int CU_TENSOR_MAP_DATA_TYPE_UINT16 = 0, CU_TENSOR_MAP_INTERLEAVE_NONE = 0;
constexpr int CU_TENSOR_MAP_SWIZZLE_32B = 32, CU_TENSOR_MAP_SWIZZLE_64B = 64;
constexpr int CU_TENSOR_MAP_SWIZZLE_128B = 128, CU_TENSOR_MAP_L2_PROMOTION_L2_256B = 0;
constexpr int CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE = 0;
using PFN_cuTensorMapEncodeTiled_v12000 = CUresult (*)(CUtensorMap*, int, cuuint32_t, void*,
                                                       const cuuint64_t*, const cuuint64_t*,
                                                       const cuuint32_t*, const cuuint32_t*, int, int,
                                                       int, int);

namespace sm90 {

inline CUresult encode_tiled(CUtensorMap* map, int, cuuint32_t rank, void* data, const cuuint64_t* sizes,
                             const cuuint64_t* strides, const cuuint32_t* box, const cuuint32_t* steps,
                             int, int swizzle, int, int) {
    *map = {static_cast<const uint8_t*>(data), int(rank), swizzle};
    bool fine = int(box[0]) * 2 == swizzle;
    for (uint32_t i = 0; i < rank; ++i) {
        map->sizes[i] = int64_t(sizes[i]), map->box[i] = int(box[i]), map->steps[i] = int(steps[i]);
        map->strides[i] = i == 0 ? 2 : int64_t(strides[i - 1]);
        fine = fine && sizes[i] > 0 && box[i] > 0 && box[i] <= 256 && steps[i] > 0 && steps[i] <= 8;
        fine = fine && (i == 0 || map->strides[i] % 16 == 0);
    }
    return fine ? CUDA_SUCCESS : 1;
}

}  // namespace sm90
