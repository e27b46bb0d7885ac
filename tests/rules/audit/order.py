"""Family 4: monotone functions and extrema, merged pools, clamps by value ranges."""

import torch
import torch.nn.functional as F
from torch import Tensor

from . import TRANSCENDENTAL, Program, product, size

T = TRANSCENDENTAL


def _three_pools(x: Tensor) -> Tensor:
    return F.max_pool3d(torch.sigmoid(F.max_pool3d(x, 2)), 3)


def _pooled_tanh(x: Tensor, b: Tensor) -> Tensor:
    return F.max_pool2d(torch.tanh(x + b[:, None, None]), 4)


def _pooled_convolution(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.max_pool2d(torch.sigmoid(F.conv2d(x, w, b)), 2)


def _best_class(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return torch.argmax(torch.softmax(F.linear(x, w, b), dim=1), dim=1)


def _best_log_class(x: Tensor) -> Tensor:
    return torch.log_softmax(x / 3.0, dim=-1).argmax(dim=-1)


def _clamps(x: Tensor) -> Tensor:
    y = torch.clamp(torch.clamp(x * 2.0, -1.0, 1.0) / 2.0, -0.75, 0.75)
    return F.hardtanh(torch.clamp(y, -0.6, 0.9))


def _relus(x: Tensor) -> Tensor:
    return F.relu6(torch.relu(F.leaky_relu(torch.relu(x), 0.1)))


def _exact_gelu_max(x: Tensor) -> Tensor:
    return F.gelu(x).amax(dim=1)


def _scaled_max(x: Tensor, s: Tensor) -> Tensor:
    return (x * torch.exp(s).unsqueeze(1) + s.unsqueeze(1)).amax(dim=1)


def _leaky_pool(x: Tensor) -> Tensor:
    return F.max_pool2d(F.leaky_relu(x, 0.2), 4)


PROGRAMS = (
    Program(
        "two max pools around a monotone function in three dimensions",
        _three_pools,
        [(1, 2, 12, 12, 12)],
        [(2, 8, 48, 48, 48)],
        "one pool of windows of six, then the function",
        lambda x: size(x) + size(x) / 216 * T,
    ),
    Program(
        "max pool of tanh of a biased tensor",
        _pooled_tanh,
        [(2, 3, 8, 8), (3,)],
        [(4, 16, 64, 64), (16,)],
        "the pool, then bias and function of a sixteenth",
        lambda x, b: size(x) + size(x) / 16 * (T + 1),
    ),
    Program(
        "max pool of a sigmoid of a convolution",
        _pooled_convolution,
        [(2, 3, 8, 8), (4, 3, 3, 3), (4,)],
        [(4, 4, 66, 66), (32, 4, 3, 3), (32,)],
        "the convolution, a pool of it, a quarter of the functions",
        lambda x, w, b: 4 * 32 * 64 * 64 * (2 * 4 * 9 + 1 + (T + 1) / 4),
    ),
    Program(
        "largest softmax of a linear layer",
        _best_class,
        [(4, 6), (7, 6), (7,)],
        [(512, 64), (1024, 64), (1024,)],
        "the position of the largest output",
        lambda x, w, b: product(512, 64, 1024) + 2 * 512 * 1024,
    ),
    Program(
        "largest log softmax of a scaled tensor",
        _best_log_class,
        [(4, 5, 6)],
        [(8, 128, 1024)],
        "the position of the largest element",
        lambda x: size(x),
    ),
    Program(
        "clamps inside one another and a scale",
        _clamps,
        [(4, 6)],
        [(1024, 1024)],
        "clamp to [-1/2, 1/2]",
        lambda x: 2 * size(x),
    ),
    Program(
        "relu, leaky relu, relu, relu6",
        _relus,
        [(4, 6)],
        [(1024, 1024)],
        "clamp to [0, 6]",
        lambda x: 2 * size(x),
    ),
    Program(
        "largest exponential",
        lambda x: torch.exp(x).amax(dim=1),
        [(4, 6)],
        [(1024, 1024)],
        "exponential of the largest",
        lambda x: size(x) + T * 1024,
    ),
    Program(
        "smallest of a negated, shifted tensor",
        lambda x: (3.0 - 2.0 * x).amin(dim=(1, 2)),
        [(4, 6, 5)],
        [(64, 128, 256)],
        "3 minus twice the largest",
        lambda x: size(x),
    ),
    Program(
        "largest gelu over an axis",
        _exact_gelu_max,
        [(4, 6)],
        [(1024, 1024)],
        "gelu falls and then rises: the larger of gelu(max) and gelu(min)",
        lambda x: 2 * size(x) + 2 * 20 * 1024,
    ),
    Program(
        "largest of rows scaled by a positive factor",
        _scaled_max,
        [(4, 6), (4,)],
        [(1024, 1024), (1024,)],
        "the largest, then the scale and shift",
        lambda x, s: size(x) + (T + 2) * 1024,
    ),
    Program(
        "max pool of a leaky relu",
        _leaky_pool,
        [(2, 3, 8, 8)],
        [(4, 16, 64, 64)],
        "the pool, then the function",
        lambda x: size(x) + size(x) / 16 * 4,
    ),
    Program(
        "clamped softmax",
        lambda x: torch.clamp(torch.softmax(x, dim=1), 0.0, 1.0),
        [(4, 6)],
        [(1024, 1024)],
        "max, subtract, exp, sum, divide",
        lambda x: (3 + T + 4) * size(x),
    ),
    Program(
        "hardtanh of tanh of gelu",
        lambda x: F.hardtanh(torch.tanh(F.gelu(x)), -1.0, 1.0),
        [(4, 6)],
        [(1024, 1024)],
        "gelu and tanh",
        lambda x: (14 + T) * size(x),
    ),
    Program(
        "relu of a square, absolute value of an exponential",
        lambda x: torch.relu(x * x) + torch.abs(torch.exp(x)),
        [(4, 6)],
        [(1024, 1024)],
        "square, exponential, sum",
        lambda x: (2 + T) * size(x),
    ),
    Program(
        "whether any sigmoid exceeds one",
        lambda x: (torch.sigmoid(x) > 1.0).any(dim=1),
        [(4, 6)],
        [(1024, 1024)],
        "false",
        lambda x: 0,
    ),
)
