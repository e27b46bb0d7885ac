// Checks and times the Hopper convolution: sampled sums against double precision, folds against the sums.
//
//     for f in main check time; do nvcc -std=c++17 -O3 -I src/fusewright/emit/skeletons \
//         -gencode arch=compute_90a,code=sm_90a -c benchmarks/conv/$f.cu -o $f.o & done; wait
//     nvcc main.o check.o time.o -o conv
//     ./conv check     # 1 if anything is wrong
//     ./conv time
#include <cstring>

#include "conv.cuh"

Memory memory;
bool timing;
int wrong;

namespace {

__device__ uint32_t hash(uint64_t x) {
    x = (x ^ x >> 33) * 0xff51afd7ed558ccdull;
    x = (x ^ x >> 33) * 0xc4ceb9fe1a85ec53ull;
    return uint32_t(x ^ x >> 33);
}

// `n` values in [low, high).
template <class T>
__global__ void fill_kernel(T* p, size_t n, uint64_t seed, float low, float high, bool bf16) {
    for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < n; i += size_t(gridDim.x) * blockDim.x) {
        const float x = low + (high - low) * (hash(i + seed) / 4294967296.0f);
        if constexpr (std::is_same_v<T, float>)
            p[i] = x;
        else
            p[i] = bf16 ? __bfloat16_as_ushort(__float2bfloat16(x)) : __half_as_ushort(__float2half(x));
    }
}

__device__ double number(uint16_t v, bool bf16) {
    return bf16 ? __bfloat162float(__ushort_as_bfloat16(v)) : __half2float(__ushort_as_half(v));
}

// A random result; of every fourth, some coordinates are the first or the last.
__device__ size_t pick(const conv90::Problem& p, int sample, int& b, int& m, int (&o)[3]) {
    for (int i = 0; i < 3; ++i) {
        o[i] = hash(sample * 11ull + i) % p.out[i];
        if (sample % 4 == 0 && (hash(sample * 7ull + i) & 1))
            o[i] = hash(sample * 9ull + i) & 1 ? 0 : p.out[i] - 1;
    }
    b = hash(sample * 11ull + 3) % p.count, m = hash(sample * 11ull + 4) % p.rows;
    const size_t line = ((size_t(b) * p.rows + m) * p.out[0] + o[0]) * p.out[1] + o[1];
    return line * p.out[2] + o[2];
}

__global__ void error_kernel(const conv90::Problem p, const Memory at, bool bf16, bool rounded) {
    const int sample = blockIdx.x * blockDim.x + threadIdx.x;
    int b, m, o[3];
    const size_t index = pick(p, sample, b, m, o);
    double sum = 0, size = 0;
    const int taps = p.taps[0] * p.taps[1] * p.taps[2];
    for (int t = 0; t < taps; ++t) {
        const int tap[3] = {t / p.taps[2] / p.taps[1], t / p.taps[2] % p.taps[1], t % p.taps[2]};
        size_t pixel = b;
        bool inside = true;
        for (int i = 0; i < 3; ++i) {
            const int x = o[i] * p.stride[i] + tap[i] * p.dilation[i] - p.before[i];
            inside = inside && x >= 0 && x < p.in[i];
            pixel = pixel * p.in[i] + x;
        }
        for (int c = 0; inside && c < p.channels; ++c) {
            const double v = number(at.images[pixel * p.channels + c], bf16) *
                             number(at.weights[(size_t(m) * taps + t) * p.channels + c], bf16);
            sum += v, size += fabs(v);
        }
    }
    if (rounded)
        sum = number(bf16 ? __bfloat16_as_ushort(__float2bfloat16(float(sum)))
                          : __half_as_ushort(__float2half(float(sum))), bf16);
    const double s = double(at.scale[b]) * at.factor[m];
    const double error = fabs(at.out[index] - fmax(sum * s + at.bias[m], 0.0));
    const double relative = error / (size * fabs(s) + fabs(double(at.bias[m])) + 1e-30);
    at.errors[sample] = relative < 1e30 ? relative : 1e30;
}

__global__ void unwritten_kernel(const float* p, size_t n, double* error) {
    for (size_t i = blockIdx.x * size_t(blockDim.x) + threadIdx.x; i < n; i += size_t(gridDim.x) * blockDim.x)
        if (__float_as_uint(p[i]) == 0xffffffffu) *error = 1e30;
}

template <class T>
void allocate(T*& p, size_t bytes) {
    check(cudaMalloc(reinterpret_cast<void**>(&p), bytes), "memory");
}

}  // namespace

void fill(const Case& c, bool bf16) {
    const size_t pixels = size_t(c.count) * c.in[0] * c.in[1] * c.in[2];
    const size_t taps = size_t(c.rows) * c.taps[0] * c.taps[1] * c.taps[2];
    fill_kernel<<<2048, 256>>>(memory.images, pixels * c.channels, 1, -1.0f, 1.0f, bf16);
    fill_kernel<<<2048, 256>>>(memory.weights, taps * c.channels, 1ull << 40, -0.25f, 0.25f, bf16);
}

double error_of(const Case& c, bool bf16, bool rounded) {
    const size_t results = size_t(c.count) * c.rows * c.columns();
    error_kernel<<<kSamples / 64, 64>>>(problem_of(c), memory, bf16, rounded);
    unwritten_kernel<<<2048, 256>>>(memory.out, results, memory.errors);
    std::vector<double> errors(kSamples);
    check(cudaMemcpy(errors.data(), memory.errors, kSamples * 8, cudaMemcpyDeviceToHost), c.name);
    return *std::max_element(errors.begin(), errors.end());
}

double fold_error(const Case& c, bool over_n) {
    const size_t columns = c.columns(), extent = over_n ? c.rows : columns;
    std::vector<float> all(c.count * c.rows * columns), folded(c.count * extent);
    check(cudaMemcpy(all.data(), memory.out, all.size() * 4, cudaMemcpyDeviceToHost), c.name);
    check(cudaMemcpy(folded.data(), memory.folded, folded.size() * 4, cudaMemcpyDeviceToHost), c.name);
    std::vector<double> want(folded.size());
    for (size_t i = 0; i < all.size(); ++i) {
        const size_t line = i / columns, batch = line / c.rows;
        want[batch * extent + (over_n ? line % c.rows : i % columns)] += all[i];
    }
    double worst = 0;
    for (size_t i = 0; i < want.size(); ++i) {
        const double error = std::abs(folded[i] - want[i]) / (std::abs(want[i]) + 1e-6);
        if (!(error <= worst)) worst = error;
    }
    return worst;
}

void check_tiles();
void time_tiles();

int main(int count, char** words) {
    if (count != 2 || (strcmp(words[1], "check") != 0 && strcmp(words[1], "time") != 0)) {
        printf("usage: %s check | time\n", words[0]);
        return 2;
    }
    timing = strcmp(words[1], "time") == 0;
    allocate(memory.images, size_t(5) << 29), allocate(memory.weights, size_t(64) << 20);
    allocate(memory.out, kOut), allocate(memory.folded, size_t(64) << 20);
    allocate(memory.scale, 4096), allocate(memory.factor, 4096), allocate(memory.bias, 4096);
    allocate(memory.errors, kSamples * 8), allocate(memory.space, kSpace);
    allocate(memory.flushed, kFlushed);
    fill_kernel<<<4, 256>>>(memory.scale, 1024, 2ull << 40, 0.5f, 1.5f, false);
    fill_kernel<<<4, 256>>>(memory.factor, 1024, 3ull << 40, 0.7f, 1.3f, false);
    fill_kernel<<<4, 256>>>(memory.bias, 1024, 4ull << 40, -0.5f, 2.0f, false);
    timing ? time_tiles() : check_tiles();
    printf("%d wrong\n", wrong);
    return wrong != 0;
}
