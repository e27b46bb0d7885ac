// Hopper's copies of boxes of images, and descriptors of operands in rows of 32, 64 or 128 bytes.
#pragma once
#include "sm90_shared.cuh"

namespace sm90 {

// Box at (channel, x, y, z, image) to shared memory; elements outside are zero and count as copied.
SM90_INLINE void copy_image_box(uint32_t target, const CUtensorMap* map, int channel, int x, int y, int z,
                                int image, uint32_t barrier) {
    asm volatile(
        "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes"
        " [%0], [%1, {%2, %3, %4, %5, %6}], [%7];" ::"r"(target), "l"(map), "r"(channel), "r"(x),
        "r"(y), "r"(z), "r"(image), "r"(barrier)
        : "memory");
}

// Descriptor of a K-major operand in rows of kChunk bytes with the swizzle of that width, atoms of 8
// rows one after the other. `address` may be that of any row: the swizzle goes by the bits of the
// address in shared memory, whose patterns start at multiples of 8 * kChunk bytes, so the field of
// the pattern's offset (bits 49 to 51) stays 0. Advancing 16 elements of K adds 2, a row kChunk / 16.
template <int kChunk>
SM90_INLINE uint64_t row_descriptor(uint32_t address) {
    static_assert(kChunk == 32 || kChunk == 64 || kChunk == 128, "widths of swizzles");
    constexpr uint64_t kSwizzle = kChunk == 128 ? 1 : kChunk == 64 ? 2 : 3;
    return (kSwizzle << 62) | (uint64_t{kChunk * 8 >> 4} << 32) | (uint64_t{1} << 16) |
           ((address & 0x3ffffu) >> 4);
}

}  // namespace sm90
