// Runs the index arithmetic of the native matrix product on the CPU: the way of every sum from the
// fragments through shared memory to the hole. Prints what is wrong, exits 1.
#include "native_sm90.cuh"

#include <stdio.h>
#include <map>
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

// Operand types whose sums are handed over as they are: whole numbers.
struct Narrow {
    using Stored = uint16_t;
    using Handed = uint16_t;
    static uint32_t pack(float x, float y) { return uint32_t(x) | uint32_t(y) << 16; }
};
struct Wide : Narrow {
    using Handed = float;
};

using Seen = std::map<std::tuple<int, int, int>, int>;
static Seen seen;

template <class T, int kWidth>
struct Hole {
    using Value = T;
    static constexpr int kRun = kWidth, kPartialWords = 0;
    static constexpr bool kFoldsOverN = true;
    int first_row, first_column;
    void apply(int batch, int m, int n, const T (&acc)[kWidth], float*) const {
        for (int v = 0; v < kWidth; ++v) {
            ++seen[{batch, m, n + v}];
            expect(int(acc[v]) == (m - first_row) * 128 + n + v - first_column, "sum", m, n + v);
        }
    }
    static void partial_identity(float*) {}
    static void partial_merge(float*, const float*) {}
};

// One slab (64 rows x 128 columns) written by four warps and read back in units of 16 rows.
template <class Type, int kRun>
static void check_slab(int rows, int columns) {
    using Tile = native90::Tile<Type, 128, 1>;
    constexpr int kRow = 300, kColumn = 640;
    native90::Args a = {};
    a.rows = kRow + rows, a.columns = kColumn + columns;
    for (int warp = 0; warp < 4; ++warp) {
        for (int lane = 0; lane < 32; ++lane) {
            float d[64];
            for (int i = 0; i < 64; ++i) {
                const int row = warp * 16 + lane / 4 + i / 2 % 2 * 8;
                d[i] = float(row * 128 + i / 4 * 8 + lane % 4 * 2 + i % 2);
            }
            threadIdx.x = lane;
            sm90::touches = 0;
            native90::Handing<Tile>{0u - Tile::kSlabsAt, 0, warp, lane}.put(d);
        }
        sm90::commit_matrices();
    }
    seen.clear();
    const Hole<typename Type::Handed, kRun> hole = {kRow, kColumn};
    for (int row = 0; row < 64; row += 16)
        for (int lane = 0; lane < 32; ++lane)
            native90::Finish<Tile, Hole<typename Type::Handed, kRun>>::run(
                a, hole, 5, kRow + row, tiles::Columns{kColumn, a.columns}, sm90::shared, row, lane);
    expect(int(seen.size()) == rows * columns, "every element once", int(seen.size()), rows * columns);
    for (const auto& [at, times] : seen) expect(times == 1, "element again", std::get<1>(at), times);
}

// Rows of 16 bytes that one matrix's eight lanes write, and the hole's 16-byte loads, lie in different
// banks.
static void check_banks() {
    using Tile = native90::Tile<Narrow, 256, 2>;
    for (int first = 0; first < 64; first += 8)
        for (int column = 0; column < 128; column += 8) {
            std::set<uint32_t> written, read;
            for (int i = 0; i < 8; ++i) {
                written.insert(native90::slab_offset<Tile>(first + i, column) / 16 % 8);
                read.insert(native90::slab_offset<Tile>(first, (column & 64) + i * 8) / 16 % 8);
            }
            expect(written.size() == 8 && read.size() == 8, "bank conflict", first, column);
        }
}

static void check_places() {
    using Tile = native90::Tile<Narrow, 256, 2>;
    native90::Args a = {};
    a.batches = 2, a.row_blocks = 5, a.column_tiles = 11;
    std::set<std::tuple<int, int, int>> places;
    for (int tile = 0; tile < 2 * 5 * 11; ++tile)
        for (int rank = 0; rank < 2; ++rank) {
            const native90::Place at = native90::place_of<Tile>(tile, a, rank);
            expect(at.row % 128 == 0 && at.row < 1280 && at.column % 256 == 0 && at.column < 11 * 256,
                   "tile in range", at.row, at.column);
            places.insert({at.batch, at.row, at.column});
        }
    expect(places.size() == 2 * 10 * 11, "every tile once", int(places.size()));
}

int main() {
    for (int rows : {64, 13, 1})
        for (int columns : {128, 72, 8}) {
            check_slab<Narrow, 8>(rows, columns);
            check_slab<Narrow, 4>(rows, columns);
            check_slab<Narrow, 1>(rows, columns);
            check_slab<Wide, 8>(rows, columns);
            check_slab<Wide, 2>(rows, columns);
        }
    check_slab<Narrow, 1>(64, 77);
    check_slab<Wide, 1>(17, 127);
    check_banks();
    check_places();
    printf("%d failures\n", failures);
    return failures != 0;
}
