"""Products with what follows them, as graphs over small tensors."""

from fusewright.ir import graph as g
from fusewright.ir.dtypes import FLOAT32
from schedule.graphs import linear, matmul, mean, normalised, scalar, softmax, tensor

M, N, K = 6, 7, 10
x, w, bias = tensor("x", M, K), tensor("w", N, K, role="param"), tensor("bias", N, role="param")
residual = tensor("r", M, N)
product = matmul(x, g.permute(w, (1, 0)))
hidden = linear(x, w, bias)
sigmoid = g.unary("sigmoid", hidden)
shifted = g.binary("add", hidden, residual)


def along(value, axis, shape):
    """A reduction's result broadcast again."""
    return g.insert_expanded(value, (axis,), shape)


def logsumexp(x, axis, *, guarded=False):
    """As ATen decomposes it (guarded: infinite maxima count as 0), or without the guard."""
    top = g.reduce("max", x, (axis,))
    if guarded:
        infinite = g.unary("isinf", top)
        top = g.where(infinite, scalar(0.0, top.shape), top)
    total = g.reduce("sum", g.unary("exp", g.binary("sub", x, along(top, axis, x.shape))), (axis,))
    return g.binary("add", g.unary("log", total), top)


def variance(x, axis):
    return mean(centred_squares(x, axis), (axis,))


def centred_squares(x, axis):
    centred = g.binary("sub", x, along(mean(x, (axis,)), axis, x.shape))
    return g.binary("mul", centred, centred)


def expectation(x, weight, axis):
    """Sum of weight * softmax(x)."""
    top = along(g.reduce("max", x, (axis,)), axis, x.shape)
    e = g.unary("exp", g.binary("sub", x, top))
    weighted = g.reduce("sum", g.binary("mul", e, weight), (axis,))
    return g.binary("div", weighted, g.reduce("sum", e, (axis,)))


# What the product's kernel computes whole.
HOSTED = {
    "pointwise epilogue": [
        g.binary("add", g.binary("mul", sigmoid, scalar(2.0, (M, N))), hidden)
    ],
    "row sum": [g.reduce("sum", sigmoid, (1,))],
    "row maximum and what follows": [g.unary("exp", g.reduce("max", hidden, (1,)))],
    "column minimum": [g.reduce("min", sigmoid, (0,))],
    "stored with bias": [hidden],
    "residual": [g.binary("add", product, residual)],
    "logsumexp": [logsumexp(shifted, 1)],
    "guarded logsumexp": [logsumexp(shifted, 1, guarded=True)],
    "logsumexp over columns": [logsumexp(shifted, 0)],
    "scaled logsumexp": [logsumexp(g.binary("mul", shifted, scalar(0.5, (M, N))), 1)],
    "argmax": [g.arg_reduce("argmax", shifted, 1)],
    "argmin over columns": [g.arg_reduce("argmin", shifted, 0)],
    "sum and maximum": [g.reduce("sum", shifted, (1,)), g.reduce("max", shifted, (1,))],
    "mean and variance": [mean(shifted, (1,)), variance(shifted, 1)],
    "expectation": [expectation(shifted, residual, 1)],
    "product and its activation": [hidden, g.unary("tanh", hidden)],
    "product and its row sum": [product, g.reduce("sum", product, (1,))],
    "activation and its row sum": [sigmoid, g.reduce("sum", sigmoid, (1,))],
}
# What leaves a pass over the stored product.
STATISTICS = {
    "softmax": [softmax(hidden)],
    "softmax over columns": [g.permute(softmax(g.permute(hidden, (1, 0))), (1, 0))],
    "norm": [normalised(shifted, (1,))],
    "norm, activation, maximum": [
        normalised(shifted, (1,)), g.unary("tanh", shifted), g.reduce("max", shifted, (1,))
    ],
}
# What needs the stored product with a kernel of its own.
KEPT_APART = {
    "product read at two places": [
        g.binary(
            "add",
            hidden,
            g.view(hidden, (M, N), (hidden.axes[0], g.ix.as_index(N - 1) - hidden.axes[1])),
        )
    ],
    "sum of distances from the mean": [
        g.reduce(
            "sum",
            g.unary("abs", g.binary("sub", hidden, along(mean(hidden, (1,)), 1, (M, N)))),
            (1,),
        )
    ],
}
# Operands that the product computes as it splits them; x is streamed where it has more rows than w.
long, gain, shift = tensor("x", 9, K), tensor("gain", K, role="param"), tensor("shift", K)
per_row, mask = tensor("s", 9), tensor("mask", 9, K)


def times_w(value):
    return matmul(value, g.permute(w, (1, 0)))


def scaled(value, factor):
    return g.binary("mul", value, factor)


PROLOGUES = {
    "relu of the streamed operand": (times_w(g.unary("tanh", long)), 1),
    "scale and shift along the depth": (
        times_w(
            g.binary(
                "add", scaled(long, g.expand(gain, long.shape)), g.expand(shift, long.shape)
            )
        ),
        1,
    ),
    "scale per row": (times_w(scaled(long, along(per_row, 1, long.shape))), 1),
    "mask of the streamed operand": (times_w(scaled(long, mask)), 0),
    "mask of the smaller operand": (
        matmul(x, scaled(g.permute(tensor("v", 12, K), (1, 0)), tensor("mask", K, 12))), 0
    ),
    "weights of another type": (
        matmul(
            x,
            g.permute(
                scaled(
                    g.cast(g.input_("codes", (5, K), g.INT64, "param"), FLOAT32),
                    along(tensor("s", 5), 1, (5, K)),
                ),
                (1, 0),
            ),
        ),
        1,
    ),
    "both operands": (
        matmul(g.unary("tanh", x), g.permute(g.unary("sigmoid", w), (1, 0))), 2
    ),
    "one computed operand as both": (
        matmul(g.unary("tanh", x), g.permute(g.unary("tanh", x), (1, 0))), 2
    ),
    "transposed weights": (
        matmul(x, g.unary("tanh", tensor("v", K, N))), 1
    ),
}
