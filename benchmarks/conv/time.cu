// Problems of ordinary networks.
#include "conv.cuh"

namespace {

const Case kPlane = {"64>128 512x1024", 8, 64, 128,
    {1, 512, 1024}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}};
const Case kDeep = {"256>256 128", 16, 256, 256,
    {1, 128, 128}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}};
const Case kWide = {"5x7 64>128 512x256", 8, 64, 128,
    {1, 512, 256}, {1, 5, 7}, {1, 1, 1}, {0, 2, 3}, {1, 1, 1}};
const Case kFew = {"16>128 512x1022", 4, 16, 128,
    {1, 512, 1024}, {1, 3, 3}, {1, 1, 1}, {0, 1, 0}, {1, 1, 1}};
const Case kPoint = {"1x1 64>128 1024", 16, 64, 128,
    {1, 1024, 1024}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {1, 1, 1}};
const Case kCube = {"3x3x3 64>64 64", 16, 64, 64,
    {64, 64, 64}, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}};
const Case kSteps = {"by 2 64>128 512", 8, 64, 128,
    {1, 512, 512}, {1, 3, 3}, {1, 2, 2}, {0, 1, 1}, {1, 1, 1}};
const Case kOdd = {"64>96 509x251", 8, 64, 96,
    {1, 511, 253}, {1, 3, 3}, {1, 1, 1}, {0, 0, 0}, {1, 1, 1}};
const Case kSmall = {"512>512 7x7", 64, 512, 512,
    {1, 7, 7}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}};

}  // namespace

void time_tiles() {
    MEASURE(kPlane, 4, RoundedFloat16, 2, 256, 64, 3, 128, 2, 1, 130, true);
    MEASURE(kPlane, 8, Float16, 2, 256, 64, 3, 128, 2, 1, 130, true);
    MEASURE(kDeep, 4, RoundedFloat16, 2, 256, 64, 3, 128, 2, 1, 130, true, 2, 64);
    MEASURE(kDeep, 8, Bfloat16, 2, 256, 64, 3, 128, 2, 1, 130, true, 2);
    MEASURE(kWide, 4, RoundedFloat16, 2, 256, 64, 4, 128, 2, 1, 132, true);
    MEASURE(kFew, 2, RoundedFloat16, 2, 256, 32, 3, 128, 2, 1, 130, false, 2);
    MEASURE(kPoint, 4, RoundedFloat16, 2, 256, 128, 1, 256, 1, 1, 256, false);
    MEASURE(kCube, 4, RoundedFloat16, 1, 256, 64, 3, 64, 2, 2, 66, true, 2);
    MEASURE(kSteps, 4, RoundedFloat16, 2, 256, 128, 1, 128, 2, 1, 128, true, 1, 64);
    MEASURE(kOdd, 1, RoundedFloat16, 2, 256, 64, 3, 126, 2, 1, 128, true, 1, 64);
    MEASURE(kSmall, 1, RoundedFloat16, 2, 128, 128, 1, 7, 7, 1, 7, true);
}
