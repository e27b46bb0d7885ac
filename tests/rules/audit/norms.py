"""Family 3: shifts and scales that cancel in normalisation, statistics through affine maps."""

import torch
import torch.nn.functional as F
from torch import Tensor

from . import DIVISION, TRANSCENDENTAL, Program, product, size

# A normalisation reads its input twice for mean and variance, subtracts twice, squares, scales.
NORM = 6


def _biased_batch_norm(x: Tensor, w: Tensor, b: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    y = F.conv2d(x, w, b)
    return F.batch_norm(y, None, None, gamma, beta, training=True)


def _batch_norm_minus_mean(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    y = F.batch_norm(x, None, None, gamma, beta, training=True)
    return y - y.mean(dim=(2, 3), keepdim=True)


def _batch_norm_mean(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, gamma, beta, training=True).mean(dim=(0, 2, 3))


def _group_norm_mean(x: Tensor) -> Tensor:
    return F.group_norm(x, 4).mean(dim=(1, 2, 3))


def _evaluated_batch_norm(
    x: Tensor, w: Tensor, b: Tensor, mean: Tensor, var: Tensor, gamma: Tensor, beta: Tensor
) -> Tensor:
    y = F.conv2d(x, w, b)
    return F.batch_norm(y, mean, var.abs(), gamma, beta, training=False).mean(dim=(2, 3))


def _pooled_evaluated_norm(x: Tensor, w: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    return F.avg_pool2d(F.batch_norm(F.conv2d(x, w), mean, var.abs()), 4)


def _layer_norm_of_shifted(x: Tensor, s: Tensor) -> Tensor:
    return F.layer_norm(x + s.unsqueeze(1), x.shape[1:])


def _pooled_batch_norm(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    y = F.batch_norm(x, None, None, gamma, beta, training=True)
    return F.avg_pool2d(F.avg_pool2d(y, 2), 2)


def _softmax_of_shifted(x: Tensor, s: Tensor) -> Tensor:
    return torch.softmax(x * 0.5 + s.unsqueeze(1), dim=1)


def _two_shifts(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
    y = (x + a[:, None, None]) * 1.0 - b[:, None, None]
    return F.instance_norm(y)


PROGRAMS = (
    Program(
        "batch norm of a biased convolution",
        _biased_batch_norm,
        [(2, 3, 6, 6), (4, 3, 3, 3), (4,), (4,), (4,)],
        [(4, 16, 32, 32), (32, 16, 3, 3), (32,), (32,), (32,)],
        "the bias cancels; the convolution and a normalisation",
        lambda x, w, b, g, h: 4 * 30 * 30 * 32 * (2 * 16 * 9 + NORM),
    ),
    Program(
        "batch norm minus its mean over space",
        _batch_norm_minus_mean,
        [(2, 3, 4, 5), (3,), (3,)],
        [(8, 32, 64, 64), (32,), (32,)],
        "shifts cancel: two sums for the variance, one for the mean, subtract, scale",
        lambda x, g, b: (NORM + 1) * size(x),
    ),
    Program(
        "mean of a batch norm over its own axes",
        _batch_norm_mean,
        [(2, 3, 4, 5), (3,), (3,)],
        [(8, 32, 64, 64), (32,), (32,)],
        "beta",
        lambda x, g, b: 0,
    ),
    Program(
        "mean of a group norm over channels and space",
        _group_norm_mean,
        [(2, 8, 4, 5)],
        [(8, 32, 64, 64)],
        "zero",
        lambda x: 0,
    ),
    Program(
        "mean over space of a batch norm in eval mode after a convolution",
        _evaluated_batch_norm,
        [(2, 3, 6, 6), (4, 3, 3, 3), (4,), (4,), (4,), (4,), (4,)],
        [(4, 16, 64, 64), (32, 16, 3, 3), (32,), (32,), (32,), (32,), (32,)],
        "x once and its edges, a product, an affine map of 4 x 32 numbers",
        lambda x, w, *s: 1.3 * size(x) + 4 * 2 * size(w) + 1000,
    ),
    Program(
        "average pool of a batch norm in eval mode after a 1x1 convolution",
        _pooled_evaluated_norm,
        [(2, 3, 8, 8), (4, 3, 1, 1), (4,), (4,)],
        [(4, 32, 64, 64), (64, 32, 1, 1), (64,), (64,)],
        "x pooled, a sixteenth of the products, an affine map",
        lambda x, w, m, v: size(x) + product(4 * 256, 32, 64) + 2 * 4 * 256 * 64,
    ),
    Program(
        "layer norm of rows with a shift each",
        _layer_norm_of_shifted,
        [(4, 6), (4,)],
        [(1024, 1024), (1024,)],
        "the shift cancels",
        lambda x, s: NORM * size(x),
    ),
    Program(
        "two average pools of a batch norm",
        _pooled_batch_norm,
        [(2, 3, 8, 8), (3,), (3,)],
        [(8, 32, 64, 64), (32,), (32,)],
        "statistics (mean, subtract, square, sum), one pool of x, an affine map of a sixteenth",
        lambda x, g, b: 5 * size(x) + size(x) / 4,
    ),
    Program(
        "softmax of rows with a shift each",
        _softmax_of_shifted,
        [(4, 6), (4,)],
        [(1024, 1024), (1024,)],
        "the shift cancels: scale, max, subtract, exp, sum, divide",
        lambda x, s: (4 + TRANSCENDENTAL + DIVISION) * size(x),
    ),
    Program(
        "instance norm after two shifts per channel",
        _two_shifts,
        [(2, 3, 4, 5), (3,), (3,)],
        [(8, 32, 64, 64), (32,), (32,)],
        "both shifts cancel",
        lambda x, a, b: NORM * size(x),
    ),
    Program(
        "variance of a shifted, doubled linear layer",
        lambda x, w, b: (F.linear(x, w) * 2.0 + b.unsqueeze(1)).var(dim=1),
        [(4, 6), (7, 6), (4,)],
        [(1024, 512), (512, 512), (1024,)],
        "the product, a variance",
        lambda x, w, b: product(1024, 512, 512) + 5 * 1024 * 512,
    ),
    Program(
        "sum of a layer norm without affine part",
        lambda x: F.layer_norm(x, x.shape[1:]).sum(dim=1),
        [(4, 6)],
        [(1024, 1024)],
        "zero",
        lambda x: 0,
    ),
)
