// Hopper instructions as named functions: mbarriers, bulk tensor copies, wgmma with A in registers.
//
// Plain PTX, no third-party header. Everything the tensor-core skeletons need from sm_90a is here and in
// sm90_shared.cuh, nowhere else, so that a test header can give each function a CPU body.
#pragma once
#include <cuda.h>
#include <cuda_runtime.h>
#include <stdint.h>

namespace sm90 {

#define SM90_INLINE __device__ __forceinline__

SM90_INLINE uint32_t shared_address(const void* p) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

// ------------------------------------------------------------------------------------- mbarriers

SM90_INLINE void barrier_init(uint32_t barrier, uint32_t arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

SM90_INLINE void barrier_init_fence() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

SM90_INLINE void barrier_expect(uint32_t barrier, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}

SM90_INLINE void barrier_arrive(uint32_t barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// Arrives at the barrier with the same offset in CTA `rank` of the cluster. The caller has only read
// shared memory, so no fence of cluster scope is asked for (it would cost a full memory barrier).
SM90_INLINE void barrier_arrive_at(uint32_t barrier, uint32_t rank) {
    asm volatile(
        "{\n.reg .b32 remote;\n"
        "mapa.shared::cluster.u32 remote, %0, %1;\n"
        "mbarrier.arrive.shared::cluster.b64 _, [remote];\n}" ::"r"(barrier), "r"(rank)
        : "memory");
}

SM90_INLINE void barrier_wait(uint32_t barrier, uint32_t parity) {
    asm volatile(
        "{\n.reg .pred done;\n"
        "WAIT:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@done bra DONE;\n"
        "bra WAIT;\n"
        "DONE:\n}" ::"r"(barrier), "r"(parity)
        : "memory");
}

// All threads of a warpgroup; `barrier` 1..15 is its own.
SM90_INLINE void group_sync(uint32_t barrier) {
    asm volatile("bar.sync %0, 128;" ::"r"(barrier) : "memory");
}

SM90_INLINE uint32_t cluster_rank() {
    uint32_t rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

SM90_INLINE void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::
                     : "memory");
}

// ---------------------------------------------------------------------------- bulk tensor copies

SM90_INLINE void prefetch_map(const CUtensorMap* map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// Box at (x, y, z) to shared memory; out-of-bounds elements are zero and count as copied.
SM90_INLINE void copy_box(uint32_t target, const CUtensorMap* map, int x, int y, int z,
                          uint32_t barrier) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes"
        " [%0], [%1, {%2, %3, %4}], [%5];" ::"r"(target), "l"(map), "r"(x), "r"(y), "r"(z), "r"(barrier)
        : "memory");
}

// The same box to the same offset of every CTA in `mask`; each one's own barrier counts the bytes.
SM90_INLINE void copy_box_multicast(uint32_t target, const CUtensorMap* map, int x, int y, int z,
                                    uint32_t barrier, uint16_t mask) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes"
        ".multicast::cluster [%0], [%1, {%2, %3, %4}], [%5], %6;" ::"r"(target), "l"(map), "r"(x),
        "r"(y), "r"(z), "r"(barrier), "h"(mask)
        : "memory");
}

// --------------------------------------------------------------------------------- conversions

// Two floats to two 16-bit values (x in the lower half), and back. Volatile, so that conversions stay
// where they are written: beside the products in flight.
SM90_INLINE uint32_t pack_f16(float x, float y) {
    uint32_t r;
    asm volatile("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(y), "f"(x));
    return r;
}

SM90_INLINE void unpack_f16(uint32_t v, float& x, float& y) {
    asm("{\n.reg .b16 l, h;\nmov.b32 {l, h}, %2;\ncvt.f32.f16 %0, l;\ncvt.f32.f16 %1, h;\n}"
        : "=f"(x), "=f"(y)
        : "r"(v));
}

SM90_INLINE uint32_t pack_bf16(float x, float y) {
    uint32_t r;
    asm volatile("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(y), "f"(x));
    return r;
}

SM90_INLINE void unpack_bf16(uint32_t v, float& x, float& y) {
    x = __uint_as_float(v << 16);
    y = __uint_as_float(v & 0xffff0000u);
}

// 2^e, e in [-126, 127].
SM90_INLINE float power_of_two(int e) { return __int_as_float((e + 127) << 23); }

// x * 2^e for e in [-252, 254]; smaller exponents count as -252.
SM90_INLINE float scale_by(float x, int e) {
    const int first = e >> 1;
    return x * power_of_two(max(first, -126)) * power_of_two(max(e - first, -126));
}

// Brings a line of global memory to the multiprocessor's cache.
SM90_INLINE void prefetch(const void* p) { asm volatile("prefetch.global.L1 [%0];" ::"l"(p)); }

SM90_INLINE float4 load_shared4(uint32_t address) {
    float4 v;
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "r"(address));
    return v;
}

SM90_INLINE void load_shared_run(uint32_t address, float (&v)[4]) {
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(v[0]), "=f"(v[1]), "=f"(v[2]), "=f"(v[3])
                 : "r"(address));
}

SM90_INLINE void load_shared_run(uint32_t address, float (&v)[2]) {
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(v[0]), "=f"(v[1]) : "r"(address));
}

SM90_INLINE float load_shared(uint32_t address) {
    float v;
    asm volatile("ld.shared.f32 %0, [%1];" : "=f"(v) : "r"(address));
    return v;
}

SM90_INLINE void store_shared(uint32_t address, float x) {
    asm volatile("st.shared.f32 [%0], %1;" ::"r"(address), "f"(x) : "memory");
}

SM90_INLINE void store_shared2(uint32_t address, float x, float y) {
    asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(address), "f"(x), "f"(y) : "memory");
}

// ---------------------------------------------------------------------------------------- wgmma

template <int kRegisters>
SM90_INLINE void registers_release() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

template <int kRegisters>
SM90_INLINE void registers_acquire() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// Descriptor of a K-major operand in 128-byte rows with the 128-byte swizzle, atoms of 8 rows
// (1024 bytes) one after the other. Advancing 16 elements of K adds 2 (32 bytes / 16).
SM90_INLINE uint64_t operand_descriptor(uint32_t address) {
    return (uint64_t{1} << 62) | (uint64_t{1024 >> 4} << 32) | (uint64_t{1} << 16) |
           ((address & 0x3ffffu) >> 4);
}

SM90_INLINE void mma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
SM90_INLINE void mma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

template <int kPending>
SM90_INLINE void mma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// Keeps the compiler from moving uses of an accumulator across this point.
template <int kCount>
SM90_INLINE void pin(float (&d)[kCount]) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

// What is computed from `word` behind this point is not kept in registers from before it.
SM90_INLINE void forget(uint32_t& word) { asm volatile("" : "+r"(word)); }

// d (64 x 128, float32) = (accumulate ? d : 0) + a (64 x 16, registers) * b (128 x 16, shared, K-major).
#define SM90_R8(n) "%" #n "0, %" #n "1, %" #n "2, %" #n "3, %" #n "4, %" #n "5, %" #n "6, %" #n "7, %" \
                   #n "8, %" #n "9, "
#define SM90_D8(i)                                                                                   \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]),      \
        "+f"(d[i + 6]), "+f"(d[i + 7])
#define SM90_MMA_N128(name, type)                                                                    \
    template <bool kAccumulate>                                                                      \
    SM90_INLINE void name(float (&d)[64], const uint32_t* a, uint64_t b) {                           \
        asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"                                    \
                     "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " {"               \
                     "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, " SM90_R8(1) SM90_R8(2) SM90_R8(3)     \
                         SM90_R8(4) SM90_R8(5) "%60, %61, %62, %63}, "                               \
                     "{%64, %65, %66, %67}, %68, p, 1, 1, 0;\n}"                                     \
                     : SM90_D8(0), SM90_D8(8), SM90_D8(16), SM90_D8(24), SM90_D8(32), SM90_D8(40),   \
                       SM90_D8(48), SM90_D8(56)                                                      \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(int(kAccumulate)));   \
    }
SM90_MMA_N128(mma_f16, "f16")
SM90_MMA_N128(mma_bf16, "bf16")
#undef SM90_MMA_N128

// The same for 64 columns, fp16.
template <bool kAccumulate>
SM90_INLINE void mma_f16(float (&d)[32], const uint32_t* a, uint64_t b) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {"
                 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, " SM90_R8(1) SM90_R8(2) "%30, %31}, "
                 "{%32, %33, %34, %35}, %36, p, 1, 1, 0;\n}"
                 : SM90_D8(0), SM90_D8(8), SM90_D8(16), SM90_D8(24)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(int(kAccumulate)));
}

}  // namespace sm90
