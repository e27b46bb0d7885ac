// Runs the Hopper convolution on the CPU, copies and products included: every tile's stages through
// shared memory, its sums to the hole. Prints what is wrong, exits 1.
#include "conv_sm90_maps.cuh"

#include <stdio.h>
#include <array>
#include <map>
#include <random>
#include <tuple>
#include <vector>

uint8_t sm90::shared[1 << 18];
uint32_t sm90::touched[64];
int sm90::touches;
std::vector<sm90::Matrices> sm90::kept_matrices[32];

static int failures = 0;
static const char* current = "";
static void expect(bool fine, const char* what, int a = 0, int b = 0, int c = 0) {
    if (!fine && failures++ < 20) printf("%s: %s (%d, %d, %d)\n", current, what, a, b, c);
}

static float element(uint64_t descriptor, int row, int k) {
    const int width = int(descriptor >> 32);
    const uint32_t at = uint32_t(descriptor & 0x3fff) << 4;
    uint16_t v;
    memcpy(&v, sm90::shared + sm90::swizzled(at + row * width + 2 * k, width), 2);
    return float(v);
}

// Operands and sums are whole numbers; a product computes what the current thread holds of it.
struct Narrow {
    using Stored = uint16_t;
    using Handed = uint16_t;
    static uint32_t pack(float x, float y) { return uint32_t(x) | uint32_t(y) << 16; }
    template <bool, bool, int kCount>
    static void multiply(float (&d)[kCount], uint64_t a, uint64_t b, int accumulate) {
        const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
        for (int i = 0; i < kCount; ++i) {
            const int row = warp * 16 + lane / 4 + i / 2 % 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
            float sum = accumulate ? d[i] : 0.0f;
            for (int k = 0; k < 16; ++k) sum += element(a, row, k) * element(b, column, k);
            d[i] = sum;
        }
    }
};
struct Wide : Narrow {
    using Handed = float;
};

static std::map<std::tuple<int, int, int>, int> seen;
static int out_of_line;

template <class T, int kWidth, int kWords, bool kOverN>
struct Hole {
    using Value = T;
    static constexpr int kRun = kWidth, kPartialWords = kWords;
    static constexpr bool kFoldsOverN = kOverN;
    int line;
    void apply(int batch, int m, int n, const T (&acc)[kWidth], float*) const {
        out_of_line += n / line != (n + kWidth - 1) / line;
        for (int v = 0; v < kWidth; ++v)
            expect(seen.insert({{batch, m, n + v}, int(acc[v])}).second, "twice", batch, m, n + v);
    }
    static void partial_identity(float* p) { p[0] = 1.0f; }
    static void partial_merge(float*, const float*) {}
};

// Two rows at once, whose columns alternate.
struct Alternates : Hole<float, 4, 0, true> {
    static constexpr int kPhases = 2;
    void apply(int batch, int m, int n, const float (&acc)[4], float*) const {
        for (int v = 0; v < 4; ++v)
            expect(seen.insert({{batch, m * 2 + v % 2, (n + v) / 2}, int(acc[v])}).second, "twice",
                   batch, m, n + v);
    }
};

static int input_at(const conv90::Problem& p, int axis, int output, int tap) {
    const int at = output * p.stride[axis] + tap * p.dilation[axis] - p.before[axis];
    return at < 0 || at >= p.in[axis] ? -1 : at;
}

static int sum_at(const conv90::Problem& p, int b, int m, int z, int y, int x) {
    int sum = 0;
    for (int i = 0; i < p.taps[0] * p.taps[1] * p.taps[2]; ++i) {
        const int iz = input_at(p, 0, z, i / p.taps[2] / p.taps[1]);
        const int iy = input_at(p, 1, y, i / p.taps[2] % p.taps[1]), ix = input_at(p, 2, x, i % p.taps[2]);
        if (iz < 0 || iy < 0 || ix < 0) continue;
        const int64_t pixel = ((int64_t(b) * p.in[0] + iz) * p.in[1] + iy) * p.in[2] + ix;
        const int64_t tap = int64_t(m) * (p.taps[0] * p.taps[1] * p.taps[2]) + i;
        for (int c = 0; c < p.channels; ++c)
            sum += static_cast<const uint16_t*>(p.images)[pixel * p.channels + c] *
                   static_cast<const uint16_t*>(p.weights)[tap * p.channels + c];
    }
    return sum;
}

// The sums of a CTA's tile in the registers of its multiplying threads.
template <class Tile>
using Sums = std::vector<std::array<float, Tile::kGroupColumns / 2>>;

template <class Tile>
static void add_up(const CUtensorMap& images, const CUtensorMap& weights, const conv90::Args& a, int tile,
                   int rank, Sums<Tile>& sums) {
    int stage = 0;
    for (int g = 0; g < a.groups; ++g)
        for (int z = 0; z < a.taps[0]; ++z)
            for (int y = 0; y < a.taps[1]; ++y)
                for (int c = 0; c < a.chunks; ++c, ++stage) {
                    const uint32_t base = stage % Tile::kStages * Tile::kStageBytes;
                    memset(sm90::shared + base, 0xff, Tile::kStageBytes);
                    for (int peer = Tile::kCluster - 1; peer >= 0; --peer)  // the last one's box stays
                        conv90::copy_stage<Tile>(&images, &weights, a,
                                                   conv90::place_of<Tile>(tile, a, rank ^ peer), base, 0,
                                                   g, z, y, c, rank ^ peer);
                    for (int t = 0; t < 256; ++t) {
                        threadIdx.x = t;
                        conv90::add_stage<Tile>(reinterpret_cast<float(&)[Tile::kGroupColumns / 2]>(
                                                      sums[t]),
                                                  a, base, t / 128, a.stage_taps(stage, Tile::kTaps),
                                                  stage > 0);
                    }
                }
    expect(stage == a.stages(), "stages", stage, a.stages());
}

// As `finish_own`, all lanes of a warp at each step.
template <class Tile, class Epilogue>
static void show(const conv90::Args& a, const Epilogue& hole, int tile, int rank, const Sums<Tile>& sums) {
    const conv90::Place at = conv90::place_of<Tile>(tile, a, rank);
    for (int w = 0; w < 8 * Tile::kSlabs; ++w) {
        const int s = w / 8, group = w / 4 % 2, warp = w % 4;
        const int block = Tile::kRowBlocks == 2 ? group * 64 : 0;
        const int column = Tile::kRowBlocks == 2 ? 0 : group * Tile::kGroupColumns;
        for (int lane = 0; lane < 32; ++lane) {
            threadIdx.x = lane;
            sm90::touches = 0;
            native90::Handing<Tile>{0, group, warp, lane}.put(sums[w % 8 * 32 + lane].data() +
                                                              s * Tile::kSlab / 2);
        }
        sm90::commit_matrices();
        for (int lane = 0; lane < 32; ++lane)
            conv90::Finish<Tile, Epilogue>::run(
                a, hole, at.image, at.shown_row(a) + block + warp * 16,
                conv90::Pixels<Tile>{a, at, column + s * Tile::kSlab},
                sm90::shared + Tile::kSlabsAt + group * Tile::kSlabBytes, warp * 16, lane);
    }
}

static void check_sums(const conv90::Problem& p) {
    for (const auto& [at, sum] : seen) {
        const auto [b, m, n] = at;
        const int x = n % p.out[2], y = n / p.out[2] % p.out[1], z = n / p.out[2] / p.out[1];
        expect(sum == sum_at(p, b, m, z, y, x), "sum", b, m, n);
    }
    expect(int(seen.size()) == p.count * p.rows * p.out[0] * p.out[1] * p.out[2], "elements", int(seen.size()));
    expect(out_of_line == 0, "a run across lines", out_of_line);
}

template <class Tile, class Epilogue>
static void check(const char* name, conv90::Problem p) {
    current = name;
    std::mt19937 random(7);
    int64_t pixels = p.count, taps = 1;
    for (int i = 0; i < 3; ++i) pixels *= p.in[i], taps *= p.taps[i];
    std::vector<uint16_t> x(pixels * p.channels), w(p.rows * taps * p.channels);
    for (auto& v : x) v = random() % 4;
    for (auto& v : w) v = random() % 3;
    p.images = x.data(), p.weights = w.data();
    CUtensorMap images, weights;
    expect(conv90::image_map<Tile>(sm90::encode_tiled, &images, p) == 0, "map of images");
    expect(conv90::weight_map<Tile>(sm90::encode_tiled, &weights, p) == 0, "map of weights");
    conv90::Args a = conv90::args_of<Tile, Epilogue>(p, nullptr);
    std::vector<float> partial(size_t(p.count) * a.partial_slabs * a.partial_extent, -1.0f);
    a.partial = partial.data();
    seen.clear(), out_of_line = 0;
    for (int tile = 0; tile < a.cluster_tiles(Tile::kCluster); ++tile)
        for (int rank = 0; rank < Tile::kCluster; ++rank) {
            Sums<Tile> sums(256);
            add_up<Tile>(images, weights, a, tile, rank, sums);
            show<Tile>(a, Epilogue{p.out[2]}, tile, rank, sums);
        }
    check_sums(p);
    for (size_t i = 0; i < partial.size(); ++i) expect(partial[i] == 1.0f, "partial result", int(i));
}

// blocks, columns, bytes, taps, width, height, depth, pitch, hands, CTAs
template <class T, int... kShape>
using Tile = conv90::Tile<T, kShape...>;

int main() {
    using NoFold8 = Hole<float, 8, 0, true>;
    using Narrow8 = Hole<uint16_t, 8, 0, true>;
    using Narrow1 = Hole<uint16_t, 1, 0, true>;
    using OverN1 = Hole<float, 1, 1, true>;
    using OverM4 = Hole<float, 4, 1, false>;
    using OverN4 = Hole<float, 4, 1, true>;
    // count, channels; then extents, taps, stride, before, dilation
    check<Tile<Wide, 2, 256, 128, 3, 128, 2, 1, 130, 1, 2>, NoFold8>(
        "lines of their own, shared taps, a CTA too many",
        {0, 0, 70, 1, 72, {1, 5, 120}, {1, 5, 120}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}});
    check<Tile<Narrow, 2, 256, 64, 4, 64, 4, 1, 70, 1, 1>, Narrow8>(
        "five dilated taps, four of them shared",
        {0, 0, 130, 2, 48, {1, 3, 72}, {1, 3, 72}, {1, 2, 5}, {1, 1, 1}, {0, 1, 4}, {1, 2, 2}});
    check<Tile<Wide, 1, 256, 32, 3, 28, 4, 2, 30, 0, 2>, OverN1>(
        "columns beyond the lines, a fold over them, odd extents",
        {0, 0, 40, 3, 24, {4, 5, 31}, {4, 5, 29}, {3, 3, 3}, {1, 1, 1}, {1, 1, 0}, {1, 1, 1}});
    check<Tile<Wide, 1, 128, 32, 1, 20, 2, 3, 20, 1, 1>, OverM4>(
        "strides and dilations along every axis, a fold over rows",
        {0, 0, 72, 2, 16, {9, 8, 47}, {4, 6, 20}, {3, 2, 3}, {2, 1, 2}, {1, 0, 2}, {2, 3, 4}});
    check<Tile<Narrow, 1, 128, 128, 1, 7, 7, 1, 7, 1, 1>, Narrow1>(
        "small images",
        {0, 0, 64, 3, 64, {1, 7, 7}, {1, 7, 7}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}});
    check<Tile<Wide, 2, 256, 128, 1, 256, 1, 1, 256, 0, 1>, OverN4>(
        "one tap, one axis, a fold over it",
        {0, 0, 130, 1, 16, {1, 1, 300}, {1, 1, 300}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {1, 1, 1}});
    check<Tile<Wide, 2, 256, 64, 1, 24, 10, 1, 24, 0, 1>, Alternates>(
        "rows that alternate",
        {0, 0, 74, 2, 24, {1, 9, 22}, {1, 9, 22}, {1, 2, 2}, {1, 1, 1}, {0, 0, 1}, {1, 1, 1}});
    printf("%d failures\n", failures);
    return failures != 0;
}
