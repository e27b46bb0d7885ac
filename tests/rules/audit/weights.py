"""Family 6: work on the weights inside forward, where the same call earns it back."""

import torch
import torch.nn.functional as F
from torch import Tensor

from . import TRANSCENDENTAL, Program, product, size


def _ensemble(x: Tensor, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
    return torch.stack([F.linear(x, u), F.linear(x, v), F.linear(x, w)]).mean(dim=0)


def _experts(x: Tensor, w: Tensor) -> Tensor:
    return torch.einsum("bi,eio->ebo", x, w).sum(dim=0)


def _parallel_convolutions(x: Tensor, v: Tensor, w: Tensor) -> Tensor:
    return torch.relu(F.conv2d(x, v, padding=1) - F.conv2d(x, w, padding=1))


def _gated_sum(x: Tensor, v: Tensor, w: Tensor) -> Tensor:
    return torch.sigmoid(F.linear(x, v) + 0.5 * F.linear(x, w))


def _scaled_weights(x: Tensor, w: Tensor, s: Tensor) -> Tensor:
    return F.linear(x, w * s.unsqueeze(1)) / 2.0


def _pooled_features(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    y = torch.tanh(F.linear(x, w, b).reshape(x.shape[0], -1, 4).mean(dim=2))
    return y.amax(dim=1)


def _folded_norm(x: Tensor, w: Tensor, gamma: Tensor, var: Tensor, beta: Tensor) -> Tensor:
    y = F.linear(x, w)
    return (y * gamma / torch.sqrt(var * var + 1e-5) + beta) * 3.0


PROGRAMS = (
    Program(
        "mean of three linear layers",
        _ensemble,
        [(30, 6), (5, 6), (5, 6), (5, 6)],
        [(4096, 256), (256, 256), (256, 256), (256, 256)],
        "the weights are added, then one product",
        lambda x, u, v, w: 2 * size(w) + product(4096, 256, 256) + 4096 * 256,
    ),
    Program(
        "sum over experts",
        _experts,
        [(30, 6), (3, 6, 5)],
        [(4096, 256), (8, 256, 256)],
        "the weights are summed, then one product",
        lambda x, w: size(w) + product(4096, 256, 256),
    ),
    Program(
        "difference of two convolutions",
        _parallel_convolutions,
        [(2, 3, 6, 6), (4, 3, 3, 3), (4, 3, 3, 3)],
        [(8, 16, 64, 64), (32, 16, 3, 3), (32, 16, 3, 3)],
        "the weights are subtracted, then one convolution",
        lambda x, v, w: size(w) + product(8 * 64 * 64, 16 * 9, 32),
    ),
    Program(
        "weighted sum of two linear layers",
        _gated_sum,
        [(30, 6), (5, 6), (5, 6)],
        [(4096, 256), (256, 256), (256, 256)],
        "the weights are added, then one product",
        lambda x, v, w: 2 * size(w) + product(4096, 256, 256) + TRANSCENDENTAL * 4096 * 256,
    ),
    Program(
        "weights scaled per output",
        _scaled_weights,
        [(30, 6), (5, 6), (5,)],
        [(4096, 256), (256, 256), (256,)],
        "the product and two small factors",
        lambda x, w, s: size(w) + product(4096, 256, 256),
    ),
    Program(
        "groups of features averaged, tanh, max",
        _pooled_features,
        [(30, 6), (8, 6), (8,)],
        [(4096, 256), (512, 256), (512,)],
        "weights averaged in fours, a quarter of the product, max, tanh of one per row",
        lambda x, w, b: size(w) + product(4096, 256, 128) + 2 * 4096 * 128,
    ),
    Program(
        "norm in eval mode written out",
        _folded_norm,
        [(30, 6), (5, 6), (5,), (5,), (5,)],
        [(4096, 256), (256, 256), (256,), (256,), (256,)],
        "the product, one factor and one shift per element",
        lambda x, w, g, v, b: product(4096, 256, 256) + 2 * 4096 * 256,
    ),
)
