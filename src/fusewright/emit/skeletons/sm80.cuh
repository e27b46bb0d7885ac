// Instructions of sm_80 and later as named functions: asynchronous copies, fragments, warp products.
//
// Plain PTX, no third-party header. Everything gemm_mma.cuh needs beyond C++ is here and in narrow.cuh
// and nowhere else, so that a test header can give each instruction a CPU body.
#pragma once
#include "raster.cuh"

namespace sm80 {

TILES_INLINE uint32_t shared_address(const void* p) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// 16 bytes from global to shared memory, those beyond the first `bytes` as zeros.
TILES_INLINE void copy16(uint32_t target, const void* source, int bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(target), "l"(source), "r"(bytes));
}
TILES_INLINE void copies_commit() { asm volatile("cp.async.commit_group;" ::); }
// Waits until at most kPending of the groups committed by this thread are on the way.
template <int kPending>
TILES_INLINE void copies_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(kPending));
}

// Four matrices of 8 rows x 16 bytes: lane l gives the address of row l % 8 of matrix l / 8 and gets
// word l % 4 of row l / 4 of each.
TILES_INLINE void load_matrices(uint32_t address, uint32_t (&v)[4]) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
                 : "r"(address));
}

// d (16 x 8, float32) = c + a (16 x 32 bytes) * b (8 x 32 bytes, transposed).
TILES_INLINE void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t* b, const float* c) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]),
          "f"(c[2]), "f"(c[3]));
}
TILES_INLINE void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t* b, const float* c) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]),
          "f"(c[2]), "f"(c[3]));
}
TILES_INLINE void mma_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t* b, const float* c) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]),
          "f"(c[2]), "f"(c[3]));
}

}  // namespace sm80
