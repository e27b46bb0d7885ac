// Instantiations of the Hopper matrix product that `bench_gemm.py` checks and times.
#include "gemm_sm90_short_launch.cuh"

namespace {

using gemm90::Matrix;
using gemm90::Problem;

// Operands as they lie in memory, K whole, extents known when they run.
struct Direct {
    static constexpr int kSlices = 1, kDepth = 0, kRun = 1;
    static constexpr bool kMapsStream = false, kMapsPlanes = false, kWhole = false;
    static constexpr gemm90::Division kDivision = gemm90::Division::kAny;
};

struct NoFold : Direct {
    static constexpr int kPartialWords = 0;
    static constexpr bool kFoldsOverN = true;
    __device__ static void partial_identity(float*) {}
    __device__ static void partial_merge(float*, const float*) {}
};

template <bool kSwap>
struct Plain : NoFold {
    static constexpr bool kSwapped = kSwap;
    float* out;
    int64_t batch_stride, pitch;
    __device__ void apply(int b, int m, int n, float acc, float*) const {
        out[b * batch_stride + m * pitch + n] = acc;
    }
};

// sigmoid(g) * 2 + g, g = acc + bias[n]
struct SigmoidResidual : NoFold {
    static constexpr bool kSwapped = true;
    const float* bias;
    float* out;
    int64_t pitch;
    __device__ void apply(int, int m, int n, float acc, float*) const {
        const float g = acc + __ldg(bias + n);
        const float v = 1.0f / (1.0f + expf(-g)) * 2.0f + g;
        out[m * pitch + n] = v;
    }
};

struct BiasGelu : NoFold {
    static constexpr bool kSwapped = true;
    const float* bias;
    float* out;
    int64_t pitch;
    __device__ void apply(int, int m, int n, float acc, float*) const {
        const float g = acc + __ldg(bias + n);
        const float v = g * 0.5f * (1.0f + erff(g * 0.70710678118654752f));
        out[m * pitch + n] = v;
    }
};

// out[m] = sum over n of sigmoid(acc + bias[n])
struct SigmoidSum : Direct {
    static constexpr bool kSwapped = true;
    static constexpr int kPartialWords = 1;
    static constexpr bool kFoldsOverN = true;
    const float* bias;
    float* out;
    __device__ void apply(int, int, int n, float acc, float* p) const {
        float q[1];
        element(0, 0, n, acc, q);
        partial_merge(p, q);
    }
    __device__ void element(int, int, int n, float acc, float* p) const {
        p[0] = 1.0f / (1.0f + expf(-(acc + __ldg(bias + n))));
    }
    __device__ static void partial_identity(float* p) { p[0] = 0.0f; }
    __device__ static void partial_merge(float* p, const float* q) { p[0] += q[0]; }
    __device__ void finish(int, int m, const float* p) const { out[m] = p[0]; }
};

// out[m] = logsumexp over n of acc + bias[n]; the fold carries (maximum, sum of exp(v - maximum)).
template <bool kSwap>
struct LogSumExp : Direct {
    static constexpr bool kSwapped = kSwap;
    static constexpr int kPartialWords = 2;
    static constexpr bool kFoldsOverN = true;
    const float* bias;
    float* out;
    __device__ void apply(int, int, int n, float acc, float* p) const {
        float q[2];
        element(0, 0, n, acc, q);
        partial_merge(p, q);
    }
    __device__ void element(int, int, int n, float acc, float* p) const {
        p[0] = acc + __ldg(bias + n), p[1] = 1.0f;
    }
    __device__ static void partial_identity(float* p) { p[0] = -INFINITY, p[1] = 0.0f; }
    __device__ static void partial_merge(float* p, const float* q) {
        const float top = fmaxf(p[0], q[0]);
        if (top == -INFINITY) return;
        p[1] = p[1] * expf(p[0] - top) + q[1] * expf(q[0] - top);
        p[0] = top;
    }
    __device__ void finish(int, int m, const float* p) const { out[m] = p[0] + logf(p[1]); }
};

template <class Hole>
int enqueue(const Problem& p, const Hole& hole, void* workspace, int safe_only, void* stream) {
    return gemm90::run(p, hole, workspace, safe_only != 0, static_cast<cudaStream_t>(stream));
}

}  // namespace

// x: (m, k) with strides; w: (n, k) with strides; strides in elements, batch stride 0: shared.
struct Call {
    const float *x, *w, *bias;
    float* out;
    int64_t x_row, x_k, x_batch, w_row, w_k, w_batch;
    int32_t m, n, k, batches, hole, swapped, safe_only, reserved;
};

static Problem problem_of(const Call& c) {
    const Matrix x = {c.x, c.x_row, c.x_k, c.x_batch}, w = {c.w, c.w_row, c.w_k, c.w_batch};
    return c.swapped ? Problem{w, x, c.n, c.m, c.k, c.batches} : Problem{x, w, c.m, c.n, c.k, c.batches};
}

extern "C" int64_t gemm_workspace(const Call* c) {
    const Problem p = problem_of(*c);
    if (c->hole == 3) return gemm90::workspace_bytes<SigmoidSum>(p);
    if (c->hole == 4)
        return c->swapped ? gemm90::workspace_bytes<LogSumExp<true>>(p)
                          : gemm90::workspace_bytes<LogSumExp<false>>(p);
    return gemm90::workspace_bytes<Plain<true>>(p);
}

extern "C" int gemm_run(const Call* c, void* workspace, void* stream) {
    const Problem p = problem_of(*c);
    const int64_t batch = int64_t(c->m) * c->n;
    const int safe = c->safe_only;
    switch (c->hole) {
        case 0:
            return c->swapped ? enqueue(p, Plain<true>{{}, c->out, batch, c->n}, workspace, safe, stream)
                              : enqueue(p, Plain<false>{{}, c->out, batch, c->n}, workspace, safe, stream);
        case 1: return enqueue(p, SigmoidResidual{{}, c->bias, c->out, c->n}, workspace, safe, stream);
        case 2: return enqueue(p, BiasGelu{{}, c->bias, c->out, c->n}, workspace, safe, stream);
        case 3: return enqueue(p, SigmoidSum{{}, c->bias, c->out}, workspace, safe, stream);
        case 4:
            return c->swapped ? enqueue(p, LogSumExp<true>{{}, c->bias, c->out}, workspace, safe, stream)
                              : enqueue(p, LogSumExp<false>{{}, c->bias, c->out}, workspace, safe, stream);
        default: return cudaErrorInvalidValue;
    }
}
