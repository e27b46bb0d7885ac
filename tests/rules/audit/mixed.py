"""Programs as benchmark suites and models have them: several families composed."""

from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from . import Program


def _gemm_divide_sum(x: Tensor, w: Tensor) -> Tensor:
    return torch.sum(torch.matmul(x, w.T) / 2, dim=1, keepdim=True) * 1.5


def _matmul_chain_of_singletons(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    y = F.linear(x, w, b).sum(dim=1, keepdim=True)
    y = torch.max(y, dim=1, keepdim=True)[0]
    y = torch.mean(y, dim=1, keepdim=True)
    return torch.logsumexp(torch.logsumexp(y, dim=1, keepdim=True), dim=1, keepdim=True)


def _residual_of_mean(x: Tensor, w: Tensor, b: Tensor, s: Tensor) -> Tensor:
    y = torch.mean(F.linear(x, w, b) - s, dim=1, keepdim=True)
    return x + F.gelu(torch.logsumexp(y, dim=1, keepdim=True))


def _grouped_mean(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    y = F.avg_pool1d(F.linear(x, w, b).unsqueeze(1), 16).squeeze(1)
    return torch.max(F.gelu(y) * 2.0, dim=1)[0]


def _pooled_transposed(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    y = F.conv_transpose3d(x, w, b, stride=2, padding=1)
    return F.avg_pool3d(F.avg_pool3d(y, 2), 2)


def _transposed_mean(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    y = F.conv_transpose2d(x, w, b, stride=2, padding=1, output_padding=1)
    return torch.mean(y * 0.5, dim=[2, 3], keepdim=True)


def _full_transposed_mean(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return torch.mean(F.conv_transpose2d(x, w, b), dim=(2, 3), keepdim=True)


def _pooled_pointwise_convolution(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.avg_pool2d(F.conv2d(x, w, b), 4)


def _pooled_convolution(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return torch.sigmoid(F.avg_pool2d(F.conv2d(x, w, b), 4)).sum(dim=(1, 2, 3))


def _mean_of_padded_convolution(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(F.conv2d(x, w, b, padding=1), 1)


def _depth_mean(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return torch.softmax(F.conv_transpose3d(x, w, b, padding=1).mean(dim=2, keepdim=True), dim=1)


def _last_token(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.linear(x, w, b)[:, -1, :]


def _strided_outputs(x: Tensor, w: Tensor) -> Tensor:
    return F.conv2d(x, w, padding=1)[:, :, ::2, ::2]


def _batch_sum(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.linear(x, w, b).sum(dim=0)


def _chain(a: Tensor, b: Tensor, v: Tensor) -> Tensor:
    return a @ b @ v


def _low_rank(x: Tensor, u: Tensor, v: Tensor) -> Tensor:
    return x @ (u @ v)


def _linear_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k.transpose(-1, -2)) @ v


def _stacked_linear(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    return F.linear(F.linear(x, w1, b1), w2, b2)


def _diagonal_factor(d: Tensor, b: Tensor) -> Tensor:
    return torch.diag(d) @ b


def _trace(a: Tensor, b: Tensor) -> Tensor:
    return torch.trace(a @ b)


def _outer_then_sum(x: Tensor, w: Tensor) -> Tensor:
    return (x.unsqueeze(1) * w.unsqueeze(0)).sum(-1)


def _bias_before_norm(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.instance_norm(F.conv2d(x, w, b))


def _mean_after_instance_norm(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    return F.instance_norm(x, weight=gamma, bias=beta).mean(dim=(2, 3))


def _max_minus_mean(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    y = torch.max(F.linear(x, w, b), dim=1, keepdim=True).values
    return F.gelu(y - y.mean(dim=1, keepdim=True))


def _min_then_clamp(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    y = F.conv3d(x, w, b)
    return torch.clamp(torch.minimum(y, torch.zeros_like(y)), 0.0, 1.0)


def _sum_of_softmax(x: Tensor, w: Tensor) -> Tensor:
    return torch.softmax(x @ w, dim=1).sum(dim=1)


def _merged_pools(x: Tensor) -> Tensor:
    return F.max_pool2d(torch.tanh(F.max_pool2d(x, 2)), 2)


PROGRAMS = (
    Program(
        "gemm, half, row sum, scaling",
        _gemm_divide_sum,
        [(3, 6), (7, 6)],
        [(1024, 2048), (2048, 2048)],
        "w summed over its rows, a matrix-vector product",
        lambda x, w: prod(w) + 2 * prod(x),
    ),
    Program(
        "row sum and reductions over one element",
        _matmul_chain_of_singletons,
        [(3, 6), (7, 6), (7,)],
        [(1024, 2048), (2048, 2048), (2048,)],
        "w summed over its rows, a matrix-vector product; the rest are identities",
        lambda x, w, b: prod(w) + 2 * prod(x),
    ),
    Program(
        "mean of a linear layer, gelu, residual",
        _residual_of_mean,
        [(3, 6), (6, 6), (6,), (6,)],
        [(1024, 2048), (2048, 2048), (2048,), (2048,)],
        "mean of the weights, a matrix-vector product, one sum per element",
        lambda x, w, b, s: prod(w) + 4 * prod(x),
    ),
    Program(
        "groups of 16 averaged, gelu, max",
        _grouped_mean,
        [(3, 6), (32, 6), (32,)],
        [(1024, 1024), (1024, 1024), (1024,)],
        "w averaged in groups, a sixteenth of the product, gelu of it",
        lambda x, w, b: prod(w) + 2 * prod(x) * w[0] // 16 + 20 * x[0] * w[0] // 16,
    ),
    Program(
        "two average pools of a transposed convolution",
        _pooled_transposed,
        [(2, 3, 5, 5, 5), (3, 4, 3, 3, 3), (4,)],
        [(4, 3, 32, 32, 32), (3, 16, 3, 3, 3), (16,)],
        "sums of windows of x, then 8 taps at 15**3 positions, scale and bias",
        lambda x, w, b: 2 * prod(x) + x[0] * 15**3 * 16 * (2 * 3 * 8 + 2),
    ),
    Program(
        "global mean of a transposed convolution",
        _transposed_mean,
        [(2, 3, 5, 4), (3, 6, 3, 3), (6,)],
        [(8, 64, 64, 64), (64, 128, 3, 3), (128,)],
        "x once and its edges, a product of 9 sums per channel with w",
        lambda x, w, b: 1.3 * prod(x) + 2 * 8 * prod(w),
    ),
    Program(
        "global mean of a full transposed convolution",
        _full_transposed_mean,
        [(2, 3, 5, 4), (3, 6, 3, 3), (6,)],
        [(8, 64, 64, 64), (64, 128, 3, 3), (128,)],
        "x and w summed over space, a product",
        lambda x, w, b: prod(x) + prod(w) + 2 * 8 * 64 * 128,
    ),
    Program(
        "average pool of a 1x1 convolution",
        _pooled_pointwise_convolution,
        [(2, 3, 8, 8), (6, 3, 1, 1), (6,)],
        [(4, 16, 64, 64), (64, 16, 1, 1), (64,)],
        "x pooled, a sixteenth of the products",
        lambda x, w, b: prod(x) + 2 * prod(x) // 16 * 64,
    ),
    Program(
        "average pool of a 3x3 convolution",
        _pooled_convolution,
        [(2, 3, 10, 10), (6, 3, 3, 3), (6,)],
        [(4, 8, 66, 66), (64, 8, 3, 3), (64,)],
        "windows of x at 9 shifts, a sixteenth of the products, sigmoid",
        lambda x, w, b: 4 * prod(x) + 4 * 16 * 16 * 64 * (2 * 8 * 9 + 12),
    ),
    Program(
        "global mean of a padded convolution",
        _mean_of_padded_convolution,
        [(2, 3, 7, 7), (9, 3, 3, 3), (9,)],
        [(4, 32, 56, 56), (64, 32, 3, 3), (64,)],
        "x once and its edges, a product of 9 sums per channel with w",
        lambda x, w, b: 1.3 * prod(x) + 2 * 4 * prod(w),
    ),
    Program(
        "mean over depth of a transposed convolution, softmax",
        _depth_mean,
        [(2, 3, 6, 4, 4), (3, 5, 3, 3, 3), (5,)],
        [(2, 16, 32, 32, 32), (16, 64, 3, 3, 3), (64,)],
        "x summed over depth, a 2-d convolution with 48 channels",
        lambda x, w, b: prod(x) + 2 * 2 * 64 * 32 * 32 * 16 * 27,
    ),
    Program(
        "last token only",
        _last_token,
        [(2, 5, 6), (7, 6), (7,)],
        [(8, 256, 512), (512, 512), (512,)],
        "one row per sequence",
        lambda x, w, b: 2 * 8 * prod(w),
    ),
    Program(
        "every second output of a convolution",
        _strided_outputs,
        [(2, 3, 8, 8), (4, 3, 3, 3)],
        [(4, 16, 64, 64), (32, 16, 3, 3)],
        "a quarter of the outputs",
        lambda x, w: 2 * 4 * 32 * 32 * 32 * 16 * 9,
    ),
    Program(
        "sum over the batch",
        _batch_sum,
        [(9, 6), (7, 6), (7,)],
        [(2048, 512), (512, 512), (512,)],
        "x summed over its rows, a matrix-vector product",
        lambda x, w, b: prod(x) + 2 * prod(w),
    ),
    Program(
        "two matrices and a vector",
        _chain,
        [(6, 6), (6, 6), (6,)],
        [(1024, 1024), (1024, 1024), (1024,)],
        "two matrix-vector products",
        lambda a, b, v: 4 * prod(a),
    ),
    Program(
        "low rank",
        _low_rank,
        [(3, 8), (8, 2), (2, 8)],
        [(64, 1024), (1024, 8), (8, 1024)],
        "x meets the thin side first",
        lambda x, u, v: 4 * 64 * 1024 * 8,
    ),
    Program(
        "attention without softmax",
        _linear_attention,
        [(2, 9, 3), (2, 9, 3), (2, 9, 3)],
        [(8, 1024, 64), (8, 1024, 64), (8, 1024, 64)],
        "keys meet values first",
        lambda q, k, v: 4 * 8 * 1024 * 64 * 64,
    ),
    Program(
        "two linear layers without a nonlinearity",
        _stacked_linear,
        [(50, 6), (9, 6), (9,), (6, 9), (6,)],
        [(8192, 256), (1024, 256), (1024,), (256, 1024), (256,)],
        "the weights meet first",
        lambda x, w1, b1, w2, b2: 2 * 8192 * 256 * 256 + 2 * 256 * 1024 * 256,
    ),
    Program(
        "diagonal factor",
        _diagonal_factor,
        [(6,), (6, 5)],
        [(1024,), (1024, 1024)],
        "one multiplication per element",
        lambda d, b: prod(b),
    ),
    Program(
        "trace of a product",
        _trace,
        [(6, 5), (5, 6)],
        [(1024, 512), (512, 1024)],
        "a dot product",
        lambda a, b: 2 * prod(a),
    ),
    Program(
        "products of all rows summed",
        _outer_then_sum,
        [(5, 6), (4, 6)],
        [(256, 512), (256, 512)],
        "a matrix product",
        lambda x, w: 2 * 256 * prod(x),
    ),
    Program(
        "instance norm of a biased convolution",
        _bias_before_norm,
        [(2, 3, 6, 6), (4, 3, 3, 3), (4,)],
        [(4, 16, 32, 32), (32, 16, 3, 3), (32,)],
        "the convolution and its statistics; the bias cancels",
        lambda x, w, b: 4 * 32 * 30 * 30 * (2 * 16 * 9 + 5),
    ),
    Program(
        "mean after instance norm",
        _mean_after_instance_norm,
        [(2, 3, 4, 5), (3,), (3,)],
        [(4, 16, 32, 32), (16,), (16,)],
        "beta, at most one pass",
        lambda x, g, b: prod(b),
    ),
    Program(
        "maximum minus its mean over one element",
        _max_minus_mean,
        [(3, 6), (7, 6), (7,)],
        [(1024, 1024), (1024, 1024), (1024,)],
        "zero",
        lambda x, w, b: 0,
    ),
    Program(
        "minimum with zero, then clamped above it",
        _min_then_clamp,
        [(1, 2, 4, 4, 4), (3, 2, 3, 3, 3), (3,)],
        [(2, 3, 16, 16, 16), (16, 3, 3, 3, 3), (16,)],
        "zero",
        lambda x, w, b: 0,
    ),
    Program(
        "sum of a softmax",
        _sum_of_softmax,
        [(3, 4), (4, 5)],
        [(1024, 512), (512, 1024)],
        "one",
        lambda x, w: 0,
    ),
    Program(
        "two max pools around a monotone function",
        _merged_pools,
        [(2, 3, 8, 8)],
        [(4, 16, 64, 64)],
        "one pool of windows of four, then the function",
        lambda x: prod(x) + prod(x) // 16 * 10,
    ),
)
