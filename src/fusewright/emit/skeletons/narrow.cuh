// float32 as 16-bit types: rounded, or split into three bfloat16 terms.
#pragma once
#include "raster.cuh"

namespace tiles {

// x in the lower half.
TILES_INLINE uint32_t pack_bf16(float x, float y) {
    uint32_t r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(y), "f"(x));
    return r;
}
TILES_INLINE uint32_t pack_f16(float x, float y) {
    uint32_t r;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(y), "f"(x));
    return r;
}
TILES_INLINE float bf16_value(uint32_t bits) { return __uint_as_float(bits << 16); }

// Ties away from zero.
TILES_INLINE float rounded_tf32(float x) {
    uint32_t r;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(x));
    return __uint_as_float(r);
}

// |x| as bits, whose order is that of the values; 0 if x is not finite.
TILES_INLINE uint32_t finite_bits(float x) {
    const uint32_t bits = __float_as_uint(x) & 0x7fffffffu;
    return bits < 0x7f800000u ? bits : 0;
}

// floor(log2(x)) from the bits of x > 0; 0 for zero.
TILES_INLINE int exponent_of(uint32_t bits) {
    if (bits == 0) return 0;
    return bits >= 0x00800000u ? int(bits >> 23) - 127 : 31 - __clz(bits) - 149;
}

// x * 2^e for e in [-252, 254]; smaller exponents count as -252.
TILES_INLINE float scaled(float x, int e) {
    const int first = e >> 1;
    return x * __int_as_float((max(first, -126) + 127) << 23) * __int_as_float((max(e - first, -126) + 127) << 23);
}

// x = the sum of three terms, exactly for 2^-110 <= |x| <= 2^127; the lower terms of an infinity or
// NaN are 0.
TILES_INLINE void split_bf16(float x, uint16_t (&term)[3]) {
    const uint32_t high = pack_bf16(x, 0.0f) & 0xffffu;
    const float rest = fabsf(x) <= 3.4028235e38f ? x - bf16_value(high) : 0.0f;
    const uint32_t middle = pack_bf16(rest, 0.0f) & 0xffffu;
    term[0] = uint16_t(high), term[1] = uint16_t(middle);
    term[2] = uint16_t(pack_bf16(rest - bf16_value(middle), 0.0f));
}

}  // namespace tiles
