"""Family 5: reductions over one element, inverse pairs, repeated parts, constants."""

import torch
import torch.nn.functional as F
from torch import Tensor

from . import DIVISION, TRANSCENDENTAL, Program, product, size

T = TRANSCENDENTAL


def _singleton_statistics(x: Tensor) -> Tensor:
    y = x.unsqueeze(1)
    return torch.softmax(y, dim=1) + y.var(dim=1, unbiased=False, keepdim=True)


def _shuffled_back(x: Tensor) -> Tensor:
    return F.pixel_unshuffle(F.pixel_shuffle(x, 2) * 2.0, 2) * 0.5


def _padded_and_cut(x: Tensor) -> Tensor:
    return F.pad(x, (1, 2, 3, 4), value=7.0)[..., 3:-4, 1:-2]


def _there_and_back(x: Tensor) -> Tensor:
    y = x.permute(2, 0, 1).contiguous().reshape(-1, x.shape[0] * x.shape[1])
    return y.reshape(x.shape[2], x.shape[0], x.shape[1]).permute(1, 2, 0)


def _joined_and_split(x: Tensor, y: Tensor) -> Tensor:
    a, b = torch.cat([x, y], dim=1).split([x.shape[1], y.shape[1]], dim=1)
    return a - x + b


def _log_of_product(x: Tensor) -> Tensor:
    return torch.exp(torch.log(x * x + 1.0))


def _repeated_branches(x: Tensor, w: Tensor) -> Tensor:
    a = torch.tanh(x @ w) + torch.sigmoid(x @ w)
    b = torch.tanh(torch.matmul(x, w)) - torch.sigmoid(torch.matmul(x, w))
    return a * b


def _sum_of_probabilities(x: Tensor, w: Tensor) -> Tensor:
    return torch.exp(torch.log_softmax(x @ w, dim=1)).sum(dim=1)


def _mean_of_probabilities(x: Tensor) -> Tensor:
    return torch.softmax(x, dim=-1).mean(dim=(1, 2))


def _centred_twice(x: Tensor) -> Tensor:
    y = x - x.mean(dim=1, keepdim=True)
    return y - y.mean(dim=1, keepdim=True)


def _rolled_and_flipped(x: Tensor) -> Tensor:
    return torch.flip(torch.roll(torch.roll(torch.flip(x, (1,)), 3, 1), -3, 1), (1,))


def _upsampled_and_pooled(x: Tensor) -> Tensor:
    return F.avg_pool2d(F.interpolate(x, scale_factor=2, mode="nearest"), 2)


PROGRAMS = (
    Program(
        "softmax and variance over one element",
        _singleton_statistics,
        [(4, 6)],
        [(1024, 1024)],
        "one",
        lambda x: 0,
    ),
    Program(
        "pixel shuffle, scale, and back",
        _shuffled_back,
        [(2, 4, 3, 3)],
        [(4, 64, 32, 32)],
        "x",
        lambda x: 0,
    ),
    Program(
        "padded and cut again",
        _padded_and_cut,
        [(2, 3, 5, 6)],
        [(4, 16, 64, 64)],
        "x",
        lambda x: 0,
    ),
    Program(
        "permuted, reshaped, and back",
        _there_and_back,
        [(2, 3, 4)],
        [(16, 64, 256)],
        "x",
        lambda x: 0,
    ),
    Program(
        "joined and split",
        _joined_and_split,
        [(3, 4), (3, 4)],
        [(512, 512), (512, 512)],
        "y",
        lambda x, y: 0,
    ),
    Program(
        "exponential of a logarithm whose domain is known",
        _log_of_product,
        [(4, 6)],
        [(1024, 1024)],
        "square and add",
        lambda x: 2 * size(x),
    ),
    Program(
        "the same subexpressions in two branches",
        _repeated_branches,
        [(4, 6), (6, 5)],
        [(512, 256), (256, 512)],
        "one product, both functions once, three operations",
        lambda x, w: product(512, 256, 512) + (2 * T + 3) * 512 * 512,
    ),
    Program(
        "sum of the exponentials of a log softmax",
        _sum_of_probabilities,
        [(4, 6), (6, 5)],
        [(512, 256), (256, 512)],
        "one",
        lambda x, w: 0,
    ),
    Program(
        "mean of a softmax over its axis and another",
        _mean_of_probabilities,
        [(2, 3, 4)],
        [(16, 64, 256)],
        "a constant",
        lambda x: 0,
    ),
    Program(
        "mean subtracted twice",
        _centred_twice,
        [(4, 6)],
        [(1024, 1024)],
        "mean and subtract",
        lambda x: 2 * size(x),
    ),
    Program(
        "flipped, rolled, and back",
        _rolled_and_flipped,
        [(4, 6)],
        [(1024, 1024)],
        "x",
        lambda x: 0,
    ),
    Program(
        "upsampled and pooled",
        _upsampled_and_pooled,
        [(2, 3, 4, 4)],
        [(4, 16, 64, 64)],
        "x",
        lambda x: 0,
    ),
    Program(
        "logsumexp chain after max over features",
        lambda x: torch.logsumexp(torch.logsumexp(x.amax(dim=1, keepdim=True), 1, True), 1, True),
        [(4, 6)],
        [(1024, 1024)],
        "the maximum",
        lambda x: size(x),
    ),
    Program(
        "product of exponentials of opposite sign",
        lambda x, y: torch.exp(x) * y * torch.exp(-x),
        [(4, 6), (4, 6)],
        [(1024, 1024), (1024, 1024)],
        "y",
        lambda x, y: 0,
    ),
    Program(
        "ratio of equal sums",
        lambda x: (torch.exp(x).sum(dim=1) + 1.0) / (torch.exp(x).sum(dim=1) + 1.0),
        [(4, 6)],
        [(1024, 1024)],
        "one",
        lambda x: 0,
    ),
    Program(
        "softmax then divided by its own sum",
        lambda x: torch.softmax(x, 1) / torch.softmax(x, 1).sum(dim=1, keepdim=True),
        [(4, 6)],
        [(1024, 1024)],
        "a softmax",
        lambda x: (3 + T + DIVISION) * size(x),
    ),
)
