// Hopper's products with both operands in shared memory, and its store of their 16-bit results.
#pragma once
#include "sm90.cuh"

namespace sm90 {

// Four 8 x 8 matrices of 16-bit elements in fragment order; lane l gives the address of row l % 8 of
// matrix l / 8.
SM90_INLINE void store_matrices(uint32_t address, uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
                 "r"(a), "r"(b), "r"(c), "r"(d)
                 : "memory");
}

// `operand_descriptor` of an operand that is contiguous across its rows: boxes of 64 rows x 64 of K, 8192
// bytes each. Advancing 16 of K adds 128 (2048 bytes / 16).
SM90_INLINE uint64_t transposed_descriptor(uint32_t address) {
    return (uint64_t{1} << 62) | (uint64_t{1024 >> 4} << 32) | (uint64_t{8192 >> 4} << 16) |
           ((address & 0x3ffffu) >> 4);
}

// d (64 x N, float32) = (accumulate ? d : 0) + a * b, both operands in shared memory under descriptors.
// kAcross: the operand is contiguous across its rows (16-bit types only).
#define SM90_D64(i)                                                                                  \
    SM90_D8(i), SM90_D8(i + 8), SM90_D8(i + 16), SM90_D8(i + 24), SM90_D8(i + 32), SM90_D8(i + 40), \
        SM90_D8(i + 48), SM90_D8(i + 56)
#define SM90_R32 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, " SM90_R8(1) SM90_R8(2) "%30, %31}, "
#define SM90_R64                                                                                     \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, " SM90_R8(1) SM90_R8(2) SM90_R8(3) SM90_R8(4)          \
        SM90_R8(5) "%60, %61, %62, %63}, "
#define SM90_R128                                                                                    \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, " SM90_R8(1) SM90_R8(2) SM90_R8(3) SM90_R8(4)          \
        SM90_R8(5) SM90_R8(6) SM90_R8(7) SM90_R8(8) SM90_R8(9) SM90_R8(10) SM90_R8(11)               \
            "%120, %121, %122, %123, %124, %125, %126, %127}, "
#define SM90_MMA_HALF(name, count, shape, type, sums, regs, a_at, b_at, p_at, ta_at, tb_at)          \
    template <bool kAcrossA, bool kAcrossB>                                                          \
    SM90_INLINE void name(float (&d)[count], uint64_t a, uint64_t b, int accumulate) {               \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " p_at ", 0;\n"                               \
                     "wgmma.mma_async.sync.aligned." shape "k16.f32." type "." type " " regs a_at     \
                     ", " b_at ", p, 1, 1, " ta_at ", " tb_at ";\n}"                                  \
                     : sums                                                                          \
                     : "l"(a), "l"(b), "r"(accumulate), "n"(int(kAcrossA)), "n"(int(kAcrossB)));     \
    }
#define SM90_MMA_TF32(name, count, shape, sums, regs, a_at, b_at, p_at)                              \
    SM90_INLINE void name(float (&d)[count], uint64_t a, uint64_t b, int accumulate) {               \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " p_at ", 0;\n"                               \
                     "wgmma.mma_async.sync.aligned." shape "k8.f32.tf32.tf32 " regs a_at ", " b_at   \
                     ", p, 1, 1;\n}"                                                                 \
                     : sums                                                                          \
                     : "l"(a), "l"(b), "r"(accumulate));                                             \
    }
#define SM90_SUMS32 SM90_D8(0), SM90_D8(8), SM90_D8(16), SM90_D8(24)
#define SM90_SUMS64 SM90_D64(0)
#define SM90_SUMS128 SM90_D64(0), SM90_D64(64)
SM90_MMA_HALF(mma_shared_f16, 32, "m64n64", "f16", SM90_SUMS32, SM90_R32, "%32", "%33", "%34", "%35",
              "%36")
SM90_MMA_HALF(mma_shared_bf16, 32, "m64n64", "bf16", SM90_SUMS32, SM90_R32, "%32", "%33", "%34",
              "%35", "%36")
SM90_MMA_HALF(mma_shared_f16, 64, "m64n128", "f16", SM90_SUMS64, SM90_R64, "%64", "%65", "%66", "%67",
              "%68")
SM90_MMA_HALF(mma_shared_bf16, 64, "m64n128", "bf16", SM90_SUMS64, SM90_R64, "%64", "%65", "%66",
              "%67", "%68")
SM90_MMA_HALF(mma_shared_f16, 128, "m64n256", "f16", SM90_SUMS128, SM90_R128, "%128", "%129", "%130",
              "%131", "%132")
SM90_MMA_HALF(mma_shared_bf16, 128, "m64n256", "bf16", SM90_SUMS128, SM90_R128, "%128", "%129",
              "%130", "%131", "%132")
SM90_MMA_TF32(mma_shared_tf32, 64, "m64n128", SM90_SUMS64, SM90_R64, "%64", "%65", "%66")
SM90_MMA_TF32(mma_shared_tf32, 128, "m64n256", SM90_SUMS128, SM90_R128, "%128", "%129", "%130")
#undef SM90_MMA_HALF
#undef SM90_MMA_TF32
#undef SM90_SUMS32
#undef SM90_SUMS64
#undef SM90_SUMS128
#undef SM90_R32
#undef SM90_R64
#undef SM90_R128
#undef SM90_D64
#undef SM90_D8
#undef SM90_R8

}  // namespace sm90
