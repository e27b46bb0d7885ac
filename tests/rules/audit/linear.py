"""Family 1: sums, means, pools, slices and selections moved through contractions."""

import torch
import torch.nn.functional as F
from torch import Tensor

from . import Program, product, size


def _strided_dilated_sum(x: Tensor, w: Tensor) -> Tensor:
    return F.conv2d(x, w, stride=2, padding=2, dilation=2).sum(dim=(2, 3))


def _mean_of_channels(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.conv2d(x, w, b, padding=1, groups=4).mean(dim=1, keepdim=True)


def _volume_mean(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.adaptive_avg_pool3d(F.conv3d(x, w, b, padding=1) * 0.5, 1).flatten(1)


def _einsum_sums(a: Tensor, b: Tensor) -> Tensor:
    return torch.einsum("bij,bjk->bik", a, b).sum(dim=(1, 2))


def _mean_between_layers(x: Tensor, w: Tensor, b: Tensor, v: Tensor) -> Tensor:
    return F.linear(F.linear(x, w, b).mean(dim=1), v)


def _heads_mean(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    y = F.linear(x, w, b).reshape(*x.shape[:2], 4, -1).transpose(1, 2)
    return y.mean(dim=2)


def _transposed_total(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.conv_transpose1d(x, w, b, stride=3, padding=1, output_padding=1).sum(dim=(1, 2))


def _transposed_phase(x: Tensor, w: Tensor) -> Tensor:
    return F.conv_transpose2d(x, w, stride=2, padding=1)[:, :, ::2, ::2]


def _zero_phases(x: Tensor, w: Tensor) -> Tensor:
    return F.conv_transpose2d(x, w, stride=2, dilation=2)


def _pooled_concat(x: Tensor, y: Tensor, w: Tensor) -> Tensor:
    return F.avg_pool2d(F.conv2d(torch.cat([x, y], dim=1), w), 8)


def _mean_of_two_convolutions(x: Tensor, v: Tensor, w: Tensor) -> Tensor:
    return F.conv2d(F.conv2d(x, v), w).mean(dim=(2, 3))


def _weighted_sum(x: Tensor, w: Tensor, s: Tensor) -> Tensor:
    return (F.linear(x, w) * s).sum(dim=1)


def _sum_of_outer_sum(a: Tensor, b: Tensor) -> Tensor:
    return (a.unsqueeze(1) + b.unsqueeze(0)).sum(dim=1)


def _overlapping_pool(x: Tensor, w: Tensor) -> Tensor:
    return F.avg_pool1d(F.linear(x, w).unsqueeze(1), 8, stride=4).squeeze(1)


def _padded_pool(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    y = F.conv1d(x, w, b, padding=1)
    return F.avg_pool1d(y, 8, padding=2, count_include_pad=True)


def _shuffled_mean(x: Tensor, w: Tensor) -> Tensor:
    return F.pixel_shuffle(F.conv2d(x, w, padding=1), 2).mean(dim=(2, 3))


def _residual_mean(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return (x + F.conv2d(x, w, b, padding=1)).mean(dim=(2, 3))


def _strided_tokens(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return torch.relu(F.linear(x, w, b))[:, ::8]


PROGRAMS = (
    Program(
        "mean over length of a padded 1-d convolution",
        lambda x, w, b: F.conv1d(x, w, b, padding=2).mean(dim=2),
        [(2, 3, 9), (4, 3, 5), (4,)],
        [(8, 32, 4096), (64, 32, 5), (64,)],
        "x once, the edges, then one product of 5 sums per channel with w",
        lambda x, w, b: size(x) + 8 * 2 * size(w),
    ),
    Program(
        "sum over space of a strided dilated convolution",
        _strided_dilated_sum,
        [(2, 3, 10, 9), (4, 3, 3, 3)],
        [(8, 32, 64, 64), (64, 32, 3, 3)],
        "every tap reads the even positions: a quarter of x, edges of rows and columns, a product",
        lambda x, w: 1.3 * size(x) / 4 + 8 * 2 * size(w),
    ),
    Program(
        "mean over channels of a grouped convolution",
        _mean_of_channels,
        [(2, 8, 6, 6), (8, 2, 3, 3), (8,)],
        [(4, 64, 56, 56), (64, 16, 3, 3), (64,)],
        "each group's weights are summed over its outputs, then one output channel is computed",
        lambda x, w, b: size(w) + 2 * size(x) * 9,
    ),
    Program(
        "mean over a volume of a padded convolution",
        _volume_mean,
        [(2, 3, 5, 4, 6), (4, 3, 3, 3, 3), (4,)],
        [(4, 16, 32, 32, 32), (32, 16, 3, 3, 3), (32,)],
        "x once, its faces and edges, a product of 27 sums per channel with w",
        lambda x, w, b: 1.3 * size(x) + 4 * 2 * size(w),
    ),
    Program(
        "sums over both outer axes of an einsum",
        _einsum_sums,
        [(2, 5, 4), (2, 4, 6)],
        [(8, 512, 256), (8, 256, 512)],
        "rows and columns are summed first, then a dot product per batch",
        lambda a, b: size(a, b) + 2 * 8 * 256,
    ),
    Program(
        "last row of a batched product",
        lambda a, b: (a @ b)[:, -1],
        [(2, 5, 4), (2, 4, 6)],
        [(8, 512, 256), (8, 256, 512)],
        "one row of a per batch",
        lambda a, b: 8 * product(1, 256, 512),
    ),
    Program(
        "some columns of a linear layer",
        lambda x, w, b: F.linear(x, w, b)[:, 2:5],
        [(4, 6), (9, 6), (9,)],
        [(1024, 512), (512, 512), (512,)],
        "three columns",
        lambda x, w, b: product(1024, 512, 3) + 3 * 1024,
    ),
    Program(
        "mean over tokens between two linear layers",
        _mean_between_layers,
        [(2, 5, 6), (7, 6), (7,), (4, 7)],
        [(8, 512, 256), (1024, 256), (1024,), (64, 1024)],
        "x once, then two products with 8 rows",
        lambda x, w, b, v: size(x) + product(8, 256, 1024) + product(8, 1024, 64),
    ),
    Program(
        "mean over tokens of split heads",
        _heads_mean,
        [(2, 5, 6), (8, 6), (8,)],
        [(8, 512, 256), (256, 256), (256,)],
        "x once, then a product with 8 rows",
        lambda x, w, b: size(x) + product(8, 256, 256),
    ),
    Program(
        "total of a transposed 1-d convolution",
        _transposed_total,
        [(2, 3, 7), (3, 4, 5), (4,)],
        [(8, 64, 2048), (64, 64, 5), (64,)],
        "x once, w summed over its outputs, a dot product of 5 edge-corrected sums per channel",
        lambda x, w, b: size(x, w),
    ),
    Program(
        "one phase of a transposed convolution",
        _transposed_phase,
        [(2, 3, 5, 5), (3, 4, 3, 3)],
        [(4, 32, 32, 32), (32, 64, 3, 3)],
        "even outputs read one tap only: a 1x1 convolution",
        lambda x, w: product(4 * 32 * 32, 32, 64),
    ),
    Program(
        "zero phases of a transposed convolution",
        _zero_phases,
        [(2, 3, 5, 5), (3, 4, 3, 3)],
        [(4, 32, 32, 32), (32, 64, 3, 3)],
        "stride and dilation of two: three of four outputs are zero",
        lambda x, w: product(4 * 34 * 34, 32 * 9, 64),
    ),
    Program(
        "average pool of a 1x1 convolution of a concatenation",
        _pooled_concat,
        [(2, 3, 8, 8), (2, 2, 8, 8), (6, 5, 1, 1)],
        [(4, 32, 64, 64), (4, 32, 64, 64), (64, 64, 1, 1)],
        "both inputs pooled once, then 8x8 positions",
        lambda x, y, w: size(x, y) + product(4 * 64, 64, 64),
    ),
    Program(
        "mean over space of two convolutions",
        _mean_of_two_convolutions,
        [(2, 3, 9, 9), (4, 3, 3, 3), (5, 4, 3, 3)],
        [(4, 16, 64, 64), (32, 16, 3, 3), (32, 32, 3, 3)],
        "x once and its edges; 9 sums of the hidden layer from 25 of x; a product with w",
        lambda x, v, w: 1.3 * size(x) + 4 * 9 * 2 * size(v) + 4 * 2 * size(w),
    ),
    Program(
        "weighted sum of a linear layer's outputs",
        _weighted_sum,
        [(4, 6), (7, 6), (7,)],
        [(1024, 512), (512, 512), (512,)],
        "w times s first: two matrix-vector products",
        lambda x, w, s: 2 * size(w) + 2 * size(x),
    ),
    Program(
        "sum over an outer sum",
        _sum_of_outer_sum,
        [(4, 3), (5, 3)],
        [(512, 256), (512, 256)],
        "n times a plus the sum of b",
        lambda a, b: 2 * size(a) + size(b),
    ),
    Program(
        "overlapping pool of a linear layer's features",
        _overlapping_pool,
        [(30, 6), (16, 6)],
        [(4096, 256), (512, 256)],
        "w pooled along its rows (each read twice), then a quarter of the columns",
        lambda x, w: 2 * size(w) + product(4096, 256, 127),
    ),
    Program(
        "padded average pool of a padded convolution",
        _padded_pool,
        [(2, 3, 16), (4, 3, 3), (4,)],
        [(8, 64, 4096), (64, 64, 3), (64,)],
        "windows of 8 of x at three shifts, then an eighth of the outputs",
        lambda x, w, b: 3 * size(x) + product(8 * 513, 64 * 3, 64),
    ),
    Program(
        "mean over space of a pixel shuffle of a convolution",
        _shuffled_mean,
        [(2, 3, 6, 6), (8, 3, 3, 3)],
        [(4, 32, 64, 64), (128, 32, 3, 3)],
        "x once and its edges, w summed over the four channels of a pixel, a product",
        lambda x, w: 1.3 * size(x) + size(w) + 4 * 2 * size(w) / 4,
    ),
    Program(
        "mean over space of a residual convolution",
        _residual_mean,
        [(2, 3, 6, 6), (3, 3, 3, 3), (3,)],
        [(4, 64, 56, 56), (64, 64, 3, 3), (64,)],
        "x once and its edges, a product with 4 rows",
        lambda x, w, b: 1.3 * size(x) + 4 * 2 * size(w),
    ),
    Program(
        "every eighth token of a linear layer with relu",
        _strided_tokens,
        [(2, 17, 6), (7, 6), (7,)],
        [(8, 512, 256), (256, 256), (256,)],
        "an eighth of the rows",
        lambda x, w, b: product(8 * 64, 256, 256),
    ),
    Program(
        "mean of a nearest-neighbour upsampling of a convolution",
        lambda x, w: F.interpolate(F.conv2d(x, w), scale_factor=2).mean(dim=(2, 3)),
        [(2, 3, 6, 6), (4, 3, 3, 3)],
        [(4, 64, 56, 56), (64, 64, 3, 3)],
        "repeating does not change a mean: x once and its edges, a product",
        lambda x, w: 1.3 * size(x) + 4 * 2 * size(w),
    ),
)
