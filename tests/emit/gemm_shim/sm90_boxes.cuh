// A stand-in for skeletons/sm90_boxes.cuh on the CPU: copies of images' boxes; a descriptor keeps the
// address, and the row's width where the real one keeps the swizzle.
#pragma once
#include "sm90_shared.cuh"

namespace sm90 {

inline void copy_image_box(uint32_t target, const CUtensorMap* map, int channel, int x, int y, int z,
                           int image, uint32_t) {
    copy_lines(target, map, {channel, x, y, z, image});
}
template <int kChunk>
uint64_t row_descriptor(uint32_t address) {
    return uint64_t{kChunk} << 32 | address >> 4;
}

}  // namespace sm90
