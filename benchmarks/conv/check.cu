// Tiles of every kind on problems that fit none of them.
#include "conv.cuh"

namespace {

// name, images, channels, rows; extents, taps, stride, before, dilation
const Case kPlane = {"3x3 70x132", 3, 48, 130,
    {1, 70, 132}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}};
const Case kOdd = {"3x3 37x251", 3, 64, 96,
    {1, 39, 253}, {1, 3, 3}, {1, 1, 1}, {0, 0, 0}, {1, 1, 1}};
const Case kCube = {"3x3x3 9x30x52", 3, 32, 72,
    {9, 30, 52}, {3, 3, 3}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}};
const Case kApart = {"5 taps dilated", 2, 24, 40,
    {1, 30, 136}, {1, 2, 5}, {1, 1, 1}, {0, 1, 6}, {1, 2, 3}};
const Case kSteps = {"strides, dilations", 3, 24, 40,
    {19, 33, 41}, {3, 2, 3}, {2, 1, 2}, {1, 0, 3}, {2, 3, 2}};
const Case kLine = {"9 taps of a line", 5, 64, 128,
    {1, 1, 5000}, {1, 1, 9}, {1, 1, 1}, {0, 0, 4}, {1, 1, 1}};
const Case kPoint = {"1x1", 3, 16, 200,
    {1, 60, 264}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {1, 1, 1}};
const Case kSmall = {"7x7, 256 channels", 9, 256, 192,
    {1, 7, 7}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}};

}  // namespace

// Type, blocks of rows, columns, bytes of channels, shared taps, width, height, depth, pitch, hands, CTAs,
// columns of a slab.
void check_tiles() {
    MEASURE(kPlane, 4, RoundedFloat16, 2, 256, 64, 3, 128, 2, 1, 130, true);
    MEASURE(kPlane, 4, RoundedBfloat16, 2, 256, 128, 3, 128, 2, 1, 130, false, 2, 64);
    MEASURE(kPlane, 2, Float16, 2, 256, 64, 3, 64, 4, 1, 66, true, 2);
    MEASURE(kOdd, 1, RoundedFloat16, 2, 256, 64, 3, 126, 2, 1, 128, true, 1, 64);
    MEASURE(kOdd, 1, Bfloat16, 1, 256, 128, 1, 128, 2, 1, 128, false, 2);
    MEASURE(kCube, 4, RoundedFloat16, 2, 256, 64, 3, 28, 4, 2, 32, true);
    MEASURE(kCube, 2, RoundedFloat16, 1, 128, 64, 1, 26, 2, 2, 26, true);
    MEASURE(kApart, 8, Float16, 2, 256, 32, 4, 64, 4, 1, 74, false);
    MEASURE(kSteps, 1, RoundedBfloat16, 1, 128, 32, 1, 21, 2, 3, 21, true, 2);
    MEASURE(kLine, 4, RoundedFloat16, 2, 256, 64, 3, 252, 1, 1, 256, true);
    MEASURE(kPoint, 4, RoundedFloat16, 2, 256, 32, 1, 256, 1, 1, 256, true);
    MEASURE(kPoint, 8, RoundedFloat16, 2, 128, 32, 1, 128, 1, 1, 128, false, 2);
    MEASURE(kSmall, 1, RoundedFloat16, 1, 128, 128, 1, 7, 7, 1, 7, true);
}
