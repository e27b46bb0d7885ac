// Tensor maps for bulk copies, made on the host.
#pragma once
#include <cuda.h>
#include <cudaTypedefs.h>
#include <cuda_runtime.h>
#include <stdint.h>

namespace sm90 {

inline size_t round_up(size_t x, size_t to) { return (x + to - 1) / to * to; }

// cuTensorMapEncodeTiled without linking the driver library.
inline cudaError_t encoder(PFN_cuTensorMapEncodeTiled_v12000* function) {
    void* entry = nullptr;
    cudaDriverEntryPointQueryResult found;
#if CUDART_VERSION >= 12050
    const cudaError_t status = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000,
                                                                cudaEnableDefault, &found);
#else
    const cudaError_t status =
        cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &entry, cudaEnableDefault, &found);
#endif
    if (status != cudaSuccess) return status;
    if (found != cudaDriverEntryPointSuccess) return cudaErrorNotSupported;
    *function = reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(entry);
    return cudaSuccess;
}

// A 3-D map: (inner, outer, batch), strides in bytes, boxes of 128 bytes (`box_inner` elements) x
// `box_outer` x 1.
inline cudaError_t make_map(PFN_cuTensorMapEncodeTiled_v12000 encode, CUtensorMap* map, const void* data,
                            CUtensorMapDataType type, int box_inner, int64_t inner, int64_t outer,
                            int64_t batches, int64_t pitch, int64_t batch_pitch, int box_outer) {
    const cuuint64_t sizes[3] = {cuuint64_t(inner), cuuint64_t(outer), cuuint64_t(batches)};
    const cuuint64_t strides[2] = {cuuint64_t(pitch), cuuint64_t(batch_pitch)};
    const cuuint32_t box[3] = {cuuint32_t(box_inner), cuuint32_t(box_outer), 1u};
    const cuuint32_t steps[3] = {1, 1, 1};
    const CUresult status =
        encode(map, type, 3, const_cast<void*>(data), sizes, strides, box, steps,
               CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
               CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return status == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace sm90
