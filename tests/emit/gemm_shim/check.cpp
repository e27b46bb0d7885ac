// Runs the index arithmetic of the Hopper matrix product on the CPU; prints what is wrong, exits 1.
#include "gemm_sm90.cuh"
#include "gemm_sm90_short.cuh"

#include <stdio.h>
#include <set>
#include <tuple>
#include <vector>

uint8_t sm90::shared[1 << 18];
uint32_t sm90::touched[64];
int sm90::touches;
std::vector<sm90::Matrices> sm90::kept_matrices[32];

static int failures = 0;
static void expect(bool fine, const char* what, int a = 0, int b = 0) {
    if (!fine && failures++ < 20) printf("wrong: %s (%d, %d)\n", what, a, b);
}

static float value_at(int row, int k) { return float(row * 64 + k); }

static void put(uint32_t at, float v) { memcpy(sm90::shared + at, &v, 4); }

// One stage as the bulk copies write it: boxes of 128-byte rows, 16-byte chunks permuted by row % 8.
static void fill_stage(bool major_k) {
    for (int row = 0; row < 128; ++row)
        for (int k = 0; k < 64; ++k) {
            const int box = major_k ? row / 64 * 2 + k / 32 : row / 32;
            const int line = major_k ? row % 64 : k, inner = major_k ? k % 32 : row % 32;
            put(box * 64 * 128 + line * 128 + (((inner / 4) ^ (line % 8)) * 16) + inner % 4 * 4,
                value_at(row, k));
        }
}

// k that the planes hold at position `p` of 16, as the prepare kernels write it.
static int paired_k(int p) { return (p & 7) / 2 * 4 + (p & 1) + (p >> 3) * 2; }

// Most words that one bank must serve in a phase of `lanes` lanes of `words` each.
static int conflict(const std::vector<uint32_t>& at, int first, int lanes, int words) {
    std::set<uint32_t> per_bank[32];
    for (int l = first; l < first + lanes; ++l)
        for (int w = 0; w < words; ++w) per_bank[(at[l] / 4 + w) % 32].insert(at[l] / 4 + w);
    size_t worst = 0;
    for (const auto& b : per_bank) worst = std::max(worst, b.size());
    return int(worst);
}

template <bool kMajorK>
static void check_reader() {
    fill_stage(kMajorK);
    for (int warp = 0; warp < 8; ++warp)
        for (int step = 0; step < 4; ++step) {
            std::vector<std::vector<uint32_t>> access;
            for (int lane = 0; lane < 32; ++lane) {
                const int g = lane / 4, t = lane % 4;
                gemm90::StreamReader<kMajorK> reader(warp / 4, warp % 4, lane);
                float v[8];
                sm90::touches = 0;
                reader.read(0, step, v);
                access.resize(sm90::touches);
                for (int i = 0; i < sm90::touches; ++i) access[i].push_back(sm90::touched[i]);
                for (int i = 0; i < 8; ++i) {
                    const int row = warp * 16 + gemm90::fragment_row<kMajorK>(g) + 8 * (i / 4);
                    const int position = 2 * t + i % 2 + 8 * (i % 4 / 2);  // of the instruction
                    const int k = step * 16 + (kMajorK ? paired_k(position) : position);
                    expect(v[i] == value_at(row, k), "fragment value", lane, i);
                }
            }
            const int lanes = kMajorK ? 8 : 32, words = kMajorK ? 4 : 1;
            for (const auto& at : access)
                for (int l = 0; l < 32; l += lanes)
                    expect(conflict(at, l, lanes, words) == 1, "bank conflict", warp, l);
        }
}

static void check_rows() {
    for (bool major : {false, true}) {
        std::set<int> rows;
        for (int g = 0; g < 8; ++g)
            rows.insert(major ? gemm90::fragment_row<true>(g) : gemm90::fragment_row<false>(g));
        expect(rows.size() == 8 && *rows.rbegin() == 7, "fragment rows are a permutation", major);
    }
}

static void check_raster(int batches, int row_blocks, int column_tiles) {
    gemm90::Args a = {};
    a.batches = batches, a.row_blocks = row_blocks, a.column_tiles = column_tiles;
    std::set<std::tuple<int, int, int>> seen;
    for (int tile = 0; tile < batches * row_blocks * column_tiles; ++tile)
        for (int rank = 0; rank < gemm90::kCluster; ++rank) {
            const gemm90::Place at = gemm90::place_of(tile, a, rank);
            const int rows = row_blocks * gemm90::kCluster * gemm90::kRows;
            expect(at.batch < batches && at.row < rows && at.column < column_tiles * gemm90::kColumns,
                   "tile in range", tile, rank);
            seen.insert({at.batch, at.row, at.column});
        }
    expect(int(seen.size()) == batches * row_blocks * column_tiles * gemm90::kCluster,
           "every tile once", row_blocks, column_tiles);
}

static void check_splits() {
    uint32_t state = 1;
    for (int i = 0; i < 200000; ++i) {
        state = state * 1664525u + 1013904223u;
        const float x = __uint_as_float((state & 0x807fffffu) | (uint32_t(60 + i % 130) << 23));
        uint32_t hi, mid, lo;
        float a, b, c, unused;
        gemm90::split(x, x, hi, mid, lo);
        sm90::unpack_bf16(hi, a, unused), sm90::unpack_bf16(mid, b, unused);
        sm90::unpack_bf16(lo, c, unused);
        expect(double(a) + b + c == double(x), "three bf16 terms are exact", i);
        const float y = ldexpf(x, (state >> 9) % 16 - 4 - ilogbf(x));  // 2^-4 .. 2^11
        gemm90::split(y, y, hi, lo);
        sm90::unpack_f16(hi, a, unused), sm90::unpack_f16(lo, b, unused);
        const double bound = std::max<double>(ldexp(fabs(y), -23), ldexp(1.0, -25));
        expect(fabs(double(a) + b - y) <= bound, "two fp16 terms", i);
    }
    uint32_t hi, mid, lo;
    gemm90::split(INFINITY, -INFINITY, hi, mid, lo);
    expect(hi == 0xff807f80u && mid == 0 && lo == 0, "infinity has no lower terms");
}

// A hole that notes what it is given.
template <bool kSwap, int kLength>
struct Noting {
    static constexpr bool kSwapped = kSwap;
    static constexpr int kRun = kLength;
    std::multiset<std::tuple<int, int, float>>* seen;
    void apply(int, int m, int n, float v, float*) const { seen->insert({m, n, v}); }
    template <int kCount>
    void apply(int b, int m, int n, const float (&v)[kCount], float*) const {
        for (int i = 0; i < kCount; ++i) apply(b, m, n + i, v[i], nullptr);
    }
};

// The way of a tile's results through a slab: each valid one once, no bank serves two words.
template <bool kMajorK, bool kSwap, int kRun>
static void check_slab(int rows, int columns) {
    using Out = gemm90::Slab<kSwap>;
    gemm90::Args a = {};
    a.rows = rows, a.columns = columns;
    for (int warp = 0; warp < 4; ++warp) {
        std::vector<std::vector<uint32_t>> access;
        for (int lane = 0; lane < 32; ++lane) {
            const int row = warp * 16 + gemm90::fragment_row<kMajorK>(lane >> 2), pair = 2 * (lane & 3);
            float value[32];
            for (int i = 0; i < 32; ++i)
                value[i] = value_at(row + 8 * (i >> 1 & 1), pair + 8 * (i >> 2) + (i & 1));
            sm90::touches = 0;
            Out::put(0, row, pair, value);
            access.resize(sm90::touches);
            for (int i = 0; i < sm90::touches; ++i) access[i].push_back(sm90::touched[i]);
        }
        for (const auto& at : access)
            for (int l = 0; l < 32; l += kSwap ? 32 : 16)
                expect(conflict(at, l, kSwap ? 32 : 16, kSwap ? 1 : 2) == 1, "bank conflict, slab", l);
    }
    std::multiset<std::tuple<int, int, float>> seen, wanted;
    for (int warp = 0; warp < 4; ++warp) {
        std::vector<std::vector<uint32_t>> access;
        for (int lane = 0; lane < 32; ++lane) {
            sm90::touches = 0;
            Out::template store<true>(a, Noting<kSwap, kRun>{&seen}, 0, {}, warp, lane);
            access.resize(sm90::touches);
            for (int i = 0; i < sm90::touches; ++i) access[i].push_back(sm90::touched[i]);
        }
        for (const auto& at : access)
            if (rows >= 64 && columns >= 64)
                for (int l = 0; l < 32; l += 32 / kRun)
                    expect(conflict(at, l, 32 / kRun, kRun) == 1, "bank conflict, slab rows", kRun);
    }
    for (int i = 0; i < std::min(rows, 64); ++i)
        for (int j = 0; j < std::min(columns, 64); ++j)
            wanted.insert({kSwap ? j : i, kSwap ? i : j, value_at(i, j)});
    expect(seen == wanted, "results by way of a slab", kMajorK, kSwap);
    if (rows < 64 || columns < 64) return;
    seen.clear();
    for (int warp = 0; warp < 4; ++warp)
        for (int lane = 0; lane < 32; ++lane, sm90::touches = 0)
            Out::template store<false>(a, Noting<kSwap, kRun>{&seen}, 0, {}, warp, lane);
    expect(seen == wanted, "results by way of a slab, unchecked", kMajorK, kSwap);
}

// The tiles of all blocks: each once.
static void check_walk(int panels, int columns, int run) {
    gemm90::Args a = {};
    a.batches = 1, a.row_blocks = panels, a.column_tiles = columns;
    std::multiset<std::pair<int, int>> seen;
    for (blockIdx.x = 0; blockIdx.x * run < panels * columns; ++blockIdx.x)
        for (gemm90::Walk w(a, run); w.live(); w.next(a)) seen.insert({w.panel, w.column});
    blockIdx.x = 0;
    bool once = int(seen.size()) == panels * columns;
    for (int t = 0; t < panels * columns; ++t) once = once && seen.count({t / columns, t % columns}) == 1;
    expect(once, "every tile of a short product once", columns, run);
}

int main() {
    check_rows();
    check_reader<true>();
    check_reader<false>();
    for (int batches : {1, 3})
        for (int rows : {1, 4, 7})
            for (int columns : {1, 7, 8, 9, 16, 21}) check_raster(batches, rows, columns);
    for (int rows : {64, 100, 20}) {
        check_slab<true, true, 4>(rows, 64), check_slab<true, false, 1>(rows, 39);
        check_slab<false, true, 1>(rows, 5), check_slab<false, false, 2>(rows, 64);
        check_slab<false, true, 2>(rows, 7), check_slab<true, false, 4>(rows, 64);
    }
    for (int run : {1, 3, 7}) check_walk(4, 10, run), check_walk(1, 7, run), check_walk(1, 1, run);
    check_splits();
    printf("%d failures\n", failures);
    return failures != 0;
}
