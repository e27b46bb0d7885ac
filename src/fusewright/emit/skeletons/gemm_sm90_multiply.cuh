// The main loop of a consumer warpgroup: products of one chunk along K, promotion, overlap.
#pragma once
#include "gemm_sm90_stream.cuh"

namespace gemm90 {

// Of a tile with kSums sums per thread: 2 * kSums columns.
template <int kSums = 64>
SM90_INLINE uint64_t step_of(uint64_t descriptor, int plane, int step) {
    return descriptor + plane * (2 * kSums * kChunk * 2 >> 4) + step * 2;
}

// Issues part = lo*hi + hi*lo + hi*hi for k16 steps [kFirst, kFirst + kSteps), small terms first.
template <int kFirst, int kSteps, int kSums>
SM90_INLINE void issue(float (&part)[kSums], const Fragments<Fast>& f, uint64_t planes) {
    constexpr int kEnd = kFirst + kSteps;
    sm90::pin(part);
    sm90::mma_fence();
    sm90::mma_f16<false>(part, f.term[1][kFirst], step_of<kSums>(planes, 0, kFirst));
#pragma unroll
    for (int s = kFirst + 1; s < kEnd; ++s)
        sm90::mma_f16<true>(part, f.term[1][s], step_of<kSums>(planes, 0, s));
#pragma unroll
    for (int s = kFirst; s < kEnd; ++s)
        sm90::mma_f16<true>(part, f.term[0][s], step_of<kSums>(planes, 1, s));
#pragma unroll
    for (int s = kFirst; s < kEnd; ++s)
        sm90::mma_f16<true>(part, f.term[0][s], step_of<kSums>(planes, 0, s));
    sm90::mma_commit();
}

// The five corrections of the six-product scheme: lo*hi, mid*mid, hi*lo, mid*hi, hi*mid.
SM90_INLINE void issue_corrections(float (&part)[64], const Fragments<Safe>& f, uint64_t planes) {
    sm90::pin(part);
    sm90::mma_fence();
    sm90::mma_bf16<false>(part, f.term[2][0], step_of(planes, 0, 0));
#pragma unroll
    for (int s = 1; s < 4; ++s) sm90::mma_bf16<true>(part, f.term[2][s], step_of(planes, 0, s));
#pragma unroll
    for (int s = 0; s < 4; ++s) sm90::mma_bf16<true>(part, f.term[1][s], step_of(planes, 1, s));
#pragma unroll
    for (int s = 0; s < 4; ++s) sm90::mma_bf16<true>(part, f.term[0][s], step_of(planes, 2, s));
#pragma unroll
    for (int s = 0; s < 4; ++s) sm90::mma_bf16<true>(part, f.term[1][s], step_of(planes, 0, s));
#pragma unroll
    for (int s = 0; s < 4; ++s) sm90::mma_bf16<true>(part, f.term[0][s], step_of(planes, 1, s));
    sm90::mma_commit();
}

// hi*hi of k16 steps [kFirst, kFirst + kSteps).
template <int kFirst, int kSteps>
SM90_INLINE void issue_leading(float (&part)[64], const Fragments<Safe>& f, uint64_t planes) {
    sm90::pin(part);
    sm90::mma_fence();
    sm90::mma_bf16<false>(part, f.term[0][kFirst], step_of(planes, 0, kFirst));
#pragma unroll
    for (int s = kFirst + 1; s < kFirst + kSteps; ++s)
        sm90::mma_bf16<true>(part, f.term[0][s], step_of(planes, 0, s));
    sm90::mma_commit();
}

template <int kSums>
SM90_INLINE void promote(float (&sum)[kSums], float (&part)[kSums]) {
    sm90::mma_wait<0>();
    sm90::pin(part);
#pragma unroll
    for (int i = 0; i < kSums; ++i) sum[i] += part[i];
}

// As above; a correction that is not finite says nothing (infinity times a lower term), hi*hi does.
SM90_INLINE void promote_finite(float (&sum)[64], float (&part)[64]) {
    sm90::mma_wait<0>();
    sm90::pin(part);
#pragma unroll
    for (int i = 0; i < 64; ++i) sum[i] += fabsf(part[i]) <= 3.4028235e38f ? part[i] : 0.0f;
}

// ------------------------------------------------------------------------------------- consumers

// Where a consumer thread stands, and its hold on both rings. `Map` is a StreamMap.
template <class Scheme, bool kMajorK, class Map>
struct Consumer {
    using Smem = Layout<Scheme>;
    uint32_t base;
    StreamReader<kMajorK> reader;
    Ring<Scheme::kStreamStages> stream_ring;
    Ring<Scheme::kPlaneStages> plane_ring;
    int lane;
    int ready;        // stage of S that `load` reads
    int stream_held;  // oldest stages not yet released
    int plane_held;
    Map map;

    SM90_INLINE void wait_stream() {
        sm90::barrier_wait(base + Smem::kStreamFull + 8 * stream_ring.stage, stream_ring.parity);
        ready = stream_ring.stage;
        stream_ring.next();
    }

    SM90_INLINE void load(Raw& raw) const { load_raw(reader, base + ready * kStreamBytes, raw); }

    SM90_INLINE void convert_chunk(Raw& raw, const float (&scale)[2], Fragments<Scheme>& f) {
        map.apply(raw, lane);
        convert(raw, scale, f);
    }

    // Frees the oldest stage held. Only behind a wait for products issued after its `load`: the reads
    // are then certainly over, wherever the compiler has put the uses of what they return.
    SM90_INLINE void release_stream() {
        __syncwarp();
        if (lane == 0) sm90::barrier_arrive(base + Smem::kStreamEmpty + 8 * stream_held);
        stream_held = stream_held + 1 == Scheme::kStreamStages ? 0 : stream_held + 1;
    }

    // Descriptor of the next tile of P, once it has arrived.
    SM90_INLINE uint64_t wait_planes() {
        sm90::barrier_wait(base + Smem::kPlaneFull + 8 * plane_ring.stage, plane_ring.parity);
        const uint32_t stage = base + Smem::kPlanesAt + plane_ring.stage * Smem::kPlaneStage;
        plane_ring.next();
        return sm90::operand_descriptor(stage);
    }

    // The tile of P is shared: tell the producers of both CTAs.
    SM90_INLINE void release_planes() {
        if (lane < kCluster)
            sm90::barrier_arrive_at(base + Smem::kPlaneEmpty + 8 * plane_held, lane);
        plane_held = plane_held + 1 == Scheme::kPlaneStages ? 0 : plane_held + 1;
    }
};

// One step of `multiply`: products of chunk `now`, whose planes have arrived, while chunk `next` is
// read and converted. With nothing left, `next` is garbage that nobody uses: straight-line code keeps
// the registers in place. The two waits inside are early, and they keep the assembler, which schedules
// between branches, from moving the conversion out of the shadow of the products.
template <int kSteps, bool kMajorK, class Map>
SM90_INLINE uint64_t advance(Consumer<Fast, kMajorK, Map>& me, uint64_t planes, const Fragments<Fast>& now,
                             Fragments<Fast>& next, int left, bool first, const float (&scale)[2],
                             float (&sum)[64], float (&part)[64]) {
    Raw raw;
    uint64_t next_planes = planes;
    me.load(raw);
    issue<0, kSteps>(part, now, planes);
    if (left > 2) me.wait_stream();
#pragma unroll
    for (int s = 0; s < 4; ++s) sm90::pin(raw.v[s]);
    me.convert_chunk(raw, scale, next);
    if (left > 1) next_planes = me.wait_planes();
    promote(sum, part);
    if constexpr (kSteps == 2) {
        issue<2, 2>(part, now, planes);
        promote(sum, part);
    }
    me.release_planes();
    if (first) me.release_stream();
    if (left > 1) me.release_stream();
    return next_planes;
}

// sum += the tile's product, promoted every 16 * kSteps of K.
template <int kSteps, bool kMajorK, class Map>
SM90_INLINE void multiply_by(Consumer<Fast, kMajorK, Map>& me, int chunks, const float (&scale)[2],
                             float (&sum)[64]) {
    float part[64];
    Fragments<Fast> even, odd;
    Raw raw;
    me.wait_stream();
    me.load(raw);
    me.convert_chunk(raw, scale, even);
    if (chunks > 1) me.wait_stream();
    uint64_t planes = me.wait_planes();
    for (int left = chunks; left > 0; left -= 2) {
        planes = advance<kSteps>(me, planes, even, odd, left, left == chunks, scale, sum, part);
        if (left == 1) break;
        planes = advance<kSteps>(me, planes, odd, even, left - 1, false, scale, sum, part);
    }
}

// Over a short depth a large product should meet few truncations, over a long one the sum few
// roundings and the tensor cores few pauses.
template <class Hole, bool kMajorK, class Map>
SM90_INLINE void multiply(Consumer<Fast, kMajorK, Map>& me, int chunks, const float (&scale)[2],
                          float (&sum)[64]) {
    if (is_short<Fast, Hole>(chunks)) {
        multiply_by<2>(me, chunks, scale, sum);
    } else {
        multiply_by<4>(me, chunks, scale, sum);
    }
}

// One chunk by six products; hi*hi is promoted every kSteps k16 steps.
template <int kSteps, bool kMajorK, class Map>
SM90_INLINE void advance(Consumer<Safe, kMajorK, Map>& me, const float (&scale)[2], float (&sum)[64],
                         float (&part)[64], Fragments<Safe>& f) {
    Raw raw;
    me.wait_stream();
    me.load(raw);
    me.convert_chunk(raw, scale, f);
    const uint64_t planes = me.wait_planes();
    issue_corrections(part, f, planes);
    promote_finite(sum, part);
    me.release_stream();
    issue_leading<0, kSteps>(part, f, planes);
    promote(sum, part);
    if constexpr (kSteps == 2) {
        issue_leading<2, 2>(part, f, planes);
        promote(sum, part);
    }
    me.release_planes();
}

template <class Hole, bool kMajorK, class Map>
SM90_INLINE void multiply(Consumer<Safe, kMajorK, Map>& me, int chunks, const float (&scale)[2],
                          float (&sum)[64]) {
    float part[64];
    Fragments<Safe> f;
    if (is_short<Safe, Hole>(chunks)) {
        for (int c = 0; c < chunks; ++c) advance<2>(me, scale, sum, part, f);
    } else {
        for (int c = 0; c < chunks; ++c) advance<4>(me, scale, sum, part, f);
    }
}

}  // namespace gemm90
