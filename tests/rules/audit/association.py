"""Family 2: products in the cheapest order, factors on the smaller side, needless operands."""

import torch
import torch.nn.functional as F
from torch import Tensor

from . import DIVISION, Program, product, size


def _normalised_linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = (q @ k.transpose(-1, -2)) * 0.125
    return (scores @ v) / scores.sum(dim=-1, keepdim=True)


def _attention_by_einsum(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = torch.einsum("bhid,bhjd->bhij", q, k)
    return torch.einsum("bhij,bhjd->bhid", scores, v)


def _low_rank_update(x: Tensor, w: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return x @ (w + a @ b)


def _bottleneck(x: Tensor, v: Tensor, w: Tensor) -> Tensor:
    return F.conv2d(F.conv2d(x, v), w, padding=1)


def _diagonal_both_sides(d: Tensor, a: Tensor, e: Tensor) -> Tensor:
    return torch.diag(d) @ a @ torch.diag(e)


def _outer_product_times_vector(u: Tensor, v: Tensor, x: Tensor) -> Tensor:
    return torch.outer(u, v) @ x


def _channel_factor(x: Tensor, s: Tensor, w: Tensor) -> Tensor:
    return (x * s) @ w


def _row_factor(x: Tensor, s: Tensor, w: Tensor) -> Tensor:
    return ((x * s.unsqueeze(1)) @ w) * 0.5


def _three_layers(x: Tensor, u: Tensor, b: Tensor, v: Tensor, w: Tensor) -> Tensor:
    return F.linear(F.linear(F.linear(x, u, b), v), w)


def _one_hot_rows(i: Tensor, w: Tensor) -> Tensor:
    index = (i.sum(dim=1) > 0).long()
    return F.one_hot(index, w.shape[0]).to(w.dtype) @ w


def _householder(x: Tensor, v: Tensor) -> Tensor:
    reflection = torch.eye(v.shape[0], dtype=v.dtype) - 2.0 * torch.outer(v, v)
    return x @ reflection


def _mean_matrix(x: Tensor, w: Tensor) -> Tensor:
    n = x.shape[0]
    return (torch.ones(n, n, dtype=x.dtype) / n) @ x @ w


PROGRAMS = (
    Program(
        "four matrices, thin in the middle",
        lambda a, b, c, d: a @ b @ c @ d,
        [(6, 7), (7, 2), (2, 7), (7, 6)],
        [(512, 512), (512, 8), (8, 512), (512, 512)],
        "both sides meet at the thin axis",
        lambda a, b, c, d: 3 * product(512, 512, 8),
    ),
    Program(
        "a vector at the left of a chain",
        lambda v, a, b: v @ (a @ b),
        [(6,), (6, 6), (6, 6)],
        [(1024,), (1024, 1024), (1024, 1024)],
        "two matrix-vector products",
        lambda v, a, b: 4 * size(a),
    ),
    Program(
        "attention without softmax, normalised",
        _normalised_linear_attention,
        [(2, 9, 3), (2, 9, 3), (2, 9, 3)],
        [(8, 1024, 64), (8, 1024, 64), (8, 1024, 64)],
        "keys meet values first; the row sums are products with the sum of the keys",
        lambda q, k, v: 8 * 2 * product(1024, 64, 64) + 3 * size(k) + DIVISION * size(v),
    ),
    Program(
        "attention without softmax by einsum",
        _attention_by_einsum,
        [(2, 2, 9, 3), (2, 2, 9, 3), (2, 2, 9, 3)],
        [(2, 8, 1024, 64), (2, 8, 1024, 64), (2, 8, 1024, 64)],
        "keys meet values first",
        lambda q, k, v: 16 * 2 * product(1024, 64, 64),
    ),
    Program(
        "few rows times a low-rank update",
        _low_rank_update,
        [(1, 9), (9, 8), (9, 3), (3, 8)],
        [(4, 1024), (1024, 1024), (1024, 64), (64, 1024)],
        "x meets w, a and then b",
        lambda x, w, a, b: product(4, 1024, 1024) + 2 * product(4, 1024, 64),
    ),
    Program(
        "1x1 convolution to many channels, 3x3 to few",
        _bottleneck,
        [(4, 2, 6, 6), (40, 2, 1, 1), (2, 40, 3, 3)],
        [(8, 16, 64, 64), (256, 16, 1, 1), (16, 256, 3, 3)],
        "the weights meet first; one 3x3 convolution between 16 channels",
        lambda x, v, w: 9 * product(16, 256, 16) + product(8 * 64 * 64, 9 * 16, 16),
    ),
    Program(
        "diagonal matrices on both sides",
        _diagonal_both_sides,
        [(4,), (4, 5), (5,)],
        [(512,), (512, 1024), (1024,)],
        "two multiplications per element",
        lambda d, a, e: 2 * size(a),
    ),
    Program(
        "trace of a product of three",
        lambda a, b, c: torch.trace(a @ b @ c),
        [(6, 7), (7, 3), (3, 6)],
        [(512, 1024), (1024, 8), (8, 512)],
        "the thin products first",
        lambda a, b, c: product(512, 1024, 8) + 2 * size(c),
    ),
    Program(
        "outer product times a vector",
        _outer_product_times_vector,
        [(5,), (6,), (6,)],
        [(4096,), (4096,), (4096,)],
        "a dot product and a multiplication",
        lambda u, v, x: 2 * size(v) + size(u),
    ),
    Program(
        "per-channel factor before a wide product",
        _channel_factor,
        [(50, 6), (6,), (6, 5)],
        [(8192, 64), (64,), (64, 32)],
        "the factor meets the smaller side",
        lambda x, s, w: size(w) + product(8192, 64, 32),
    ),
    Program(
        "per-row factor before a narrowing product",
        _row_factor,
        [(9, 20), (9,), (20, 2)],
        [(4096, 512), (4096,), (512, 4)],
        "the factors meet the output",
        lambda x, s, w: product(4096, 512, 4) + 4096 * 5,
    ),
    Program(
        "three linear layers without a nonlinearity",
        _three_layers,
        [(60, 4), (20, 4), (20,), (20, 20), (3, 20)],
        [(8192, 64), (512, 64), (512,), (512, 512), (32, 512)],
        "the narrow last layer meets the others first",
        lambda x, u, b, v, w: (
            product(32, 512, 512) + product(32, 512, 64) + product(8192, 64, 32) + 8192 * 32
        ),
    ),
    Program(
        "one-hot rows times a matrix",
        _one_hot_rows,
        [(5, 3), (2, 6)],
        [(512, 8), (512, 1024)],
        "rows are looked up",
        lambda i, w: size(i) + 1024,
    ),
    Program(
        "identity matrix",
        lambda x: torch.eye(x.shape[0], dtype=x.dtype) @ x,
        [(4, 5)],
        [(512, 1024)],
        "nothing",
        lambda x: 0,
    ),
    Program(
        "reflection",
        _householder,
        [(5, 6), (6,)],
        [(512, 1024), (1024,)],
        "x minus the outer product of x v with v",
        lambda x, v: 4 * size(x) + size(x),
    ),
    Program(
        "averaging matrix times a linear layer",
        _mean_matrix,
        [(5, 6), (6, 4)],
        [(1024, 512), (512, 512)],
        "the mean of the rows, one product with one row",
        lambda x, w: size(x) + product(1, 512, 512),
    ),
    Program(
        "product with an expanded row",
        lambda x, w: x.expand(w.shape[0], -1) @ w,
        [(1, 5), (5, 5)],
        [(1, 1024), (1024, 1024)],
        "one row",
        lambda x, w: product(1, 1024, 1024),
    ),
    Program(
        "sum of outer products as a batched product",
        lambda x, y, z: torch.einsum("bi,bj,j->i", x, y, z),
        [(4, 5), (4, 6), (6,)],
        [(512, 512), (512, 512), (512,)],
        "two matrix-vector products",
        lambda x, y, z: 2 * size(y) + 2 * size(x),
    ),
)
