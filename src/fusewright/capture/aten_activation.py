"""Lowerings of activations; the formulas are those of ATen's Activation kernels.

Elementary functions are in `aten_pointwise`, losses come decomposed by torch.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial

from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir.graph import Node, Scalar

from .operands import (
    NotLowered,
    absolute,
    add,
    as_node,
    both,
    choose,
    div,
    erf,
    exp,
    expm1,
    float_of,
    ge,
    gt,
    le,
    log1p,
    maximum,
    minimum,
    mul,
    neg,
    pointwise,
    promote,
    sigmoid,
    sub,
    tanh,
)

SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946
SQRT_HALF = math.sqrt(0.5)
GELU_BETA = math.sqrt(2.0 / math.pi)


def relu(x: Node) -> Node:
    """`max(x, 0)`, NaN stays NaN."""
    return pointwise(lambda v: maximum(v, 0), x)


def gelu(x: Node, *, approximate: str = "none") -> Node:
    """Hendrycks and Gimpel, arXiv:1606.08415; `tanh` is their approximation."""
    return pointwise(_gelu_tanh if approximate == "tanh" else _gelu_erf, x)


def _gelu_erf(v: Node) -> Node:
    return mul(mul(v, 0.5), add(erf(mul(v, SQRT_HALF)), 1.0))


def _gelu_tanh(v: Node) -> Node:
    inner = mul(add(v, mul(mul(mul(v, v), v), 0.044715)), GELU_BETA)
    return mul(mul(v, 0.5), add(tanh(inner), 1.0))


def silu(x: Node) -> Node:
    """`x * sigmoid(x)`."""
    return pointwise(lambda v: mul(v, sigmoid(v)), x)


def mish(x: Node) -> Node:
    """`x * tanh(log(1 + exp(x)))`."""
    return pointwise(lambda v: mul(v, tanh(log1p(exp(v)))), x)


def _sixth_ramp(v: Node) -> Node:
    return minimum(maximum(add(v, 3.0), 0.0), 6.0)


def hardsigmoid(x: Node) -> Node:
    """`clamp(x + 3, 0, 6) / 6`."""
    return pointwise(lambda v: div(_sixth_ramp(v), 6.0), x)


def hardswish(x: Node) -> Node:
    """`x * clamp(x + 3, 0, 6) / 6`."""
    return pointwise(lambda v: div(mul(v, _sixth_ramp(v)), 6.0), x)


def hardtanh(x: Node, low: Scalar = -1.0, high: Scalar = 1.0) -> Node:
    """`min(max(x, low), high)` in x's dtype."""
    return pointwise(lambda v: minimum(maximum(v, low), high), x)


def elu(x: Node, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Node:
    """`scale * (x if x > 0 else alpha * (exp(x * input_scale) - 1))`."""

    def formula(v: Node) -> Node:
        inner = v if input_scale == 1 else mul(v, input_scale)
        below = expm1(inner) if alpha * scale == 1 else mul(expm1(inner), alpha * scale)
        return choose(le(v, 0.0), below, v if scale == 1 else mul(v, scale))

    return pointwise(formula, x)


def selu(x: Node) -> Node:
    """Klambauer et al., arXiv:1706.02515."""
    return elu(x, SELU_ALPHA, SELU_SCALE)


def celu(x: Node, alpha: float = 1.0) -> Node:
    """Barron, arXiv:1704.07483."""
    return elu(x, alpha, 1.0, 1.0 / alpha)


def leaky_relu(x: Node, slope: float = 0.01) -> Node:
    """`x if x > 0 else slope * x`."""
    return pointwise(lambda v: choose(gt(v, 0.0), v, mul(v, slope)), x)


def rrelu_with_noise(
    x: Node,
    noise: Node,
    lower: float = 0.125,
    upper: float = 0.3333333333333333,
    training: float = False,
    generator: None = None,
) -> Node:
    """In evaluation mode a leaky ReLU with the mean slope; training draws random numbers."""
    if training:
        raise NotLowered("random slopes")
    return leaky_relu(x, (lower + upper) / 2)


def rrelu(
    x: Node,
    lower: float = 0.125,
    upper: float = 0.3333333333333333,
    training: bool = False,
    generator: None = None,
) -> Node:
    """As rrelu_with_noise, whose noise is of use to a backward pass only."""
    return rrelu_with_noise(x, x, lower, upper, training)


def rrelu_with_noise_functional(
    x: Node,
    noise: Node,
    lower: float = 0.125,
    upper: float = 0.3333333333333333,
    training: float = False,
) -> tuple[Node | None, ...]:
    """(value, noise): the noise is not touched outside training."""
    return rrelu_with_noise(x, noise, lower, upper, training), noise


def prelu(x: Node, weight: Node) -> Node:
    """`x if x > 0 else weight * x`, one weight for each channel (axis 1)."""
    if weight.size > 1:
        shape = (1, weight.size, *(1,) * (len(x.shape) - 2))
        weight = g.reshape(weight, shape)
    else:
        weight = g.reshape(weight, ())
    slope = as_node(weight, x.dtype, x.shape)
    return pointwise(lambda v, w: choose(gt(v, 0.0), v, mul(w, v)), x, slope, dtype=x.dtype)


def softplus(x: Node, beta: float = 1, threshold: float = 20) -> Node:
    """`log(1 + exp(beta x)) / beta`, x itself above the threshold."""

    def formula(v: Node) -> Node:
        scaled = v if beta == 1 else mul(v, beta)
        soft = log1p(exp(scaled))
        return choose(gt(scaled, threshold), v, soft if beta == 1 else div(soft, beta))

    return pointwise(formula, x)


def log_sigmoid(x: Node) -> Node:
    """`min(x, 0) - log(1 + exp(-|x|))`."""
    return pointwise(lambda v: sub(minimum(v, 0.0), log1p(exp(neg(absolute(v))))), x)


def log_sigmoid_forward(x: Node) -> tuple[Node | None, ...]:
    """The value; the second result is a buffer for the backward pass only."""
    return (log_sigmoid(x), None)


def softsign(x: Node) -> Node:
    """`x / (1 + |x|)`."""
    return pointwise(lambda v: div(v, add(absolute(v), 1.0)), x, dtype=float_of(promote(x)))


def hardshrink(x: Node, bound: float = 0.5) -> Node:
    """0 where -bound <= x <= bound; NaN stays."""

    def formula(v: Node) -> Node:
        return choose(both(ge(v, -bound), le(v, bound)), 0.0, v)

    return pointwise(formula, x)


def softshrink(x: Node, bound: float = 0.5) -> Node:
    """x moved toward 0 by `bound`; NaN stays."""

    def formula(v: Node) -> Node:
        low = choose(gt(neg(v), bound), add(v, bound), mul(v, 0.0))
        return choose(gt(v, bound), sub(v, bound), low)

    return pointwise(formula, x)


def threshold(x: Node, bound: Scalar, value: Scalar) -> Node:
    """`value` where x <= bound."""
    return pointwise(lambda v: choose(le(v, bound), value, v), x)


def glu(x: Node, dim: int = -1) -> Node:
    """First half times the sigmoid of the second half along `dim`."""
    axis = dim % len(x.shape)
    half = x.shape[axis] // 2
    shape = (*x.shape[:axis], half, *x.shape[axis + 1 :])
    return pointwise(lambda a, b: mul(a, sigmoid(b)), *_halves(x, axis, half, shape))


def _halves(x: Node, axis: int, half: int, shape: tuple[int, ...]) -> tuple[Node, Node]:
    axes = ix.axes(shape)
    second = (*axes[:axis], axes[axis] + half, *axes[axis + 1 :])
    return g.view(x, shape, axes), g.view(x, shape, second)


TABLE: Mapping[str, Callable[..., Node | tuple[Node | None, ...]]] = {
    "aten.relu.default": relu,
    "aten.relu6.default": partial(hardtanh, low=0.0, high=6.0),
    "aten.gelu.default": gelu,
    "aten.silu.default": silu,
    "aten.mish.default": mish,
    "aten.hardsigmoid.default": hardsigmoid,
    "aten.hardswish.default": hardswish,
    "aten.hardtanh.default": hardtanh,
    "aten.elu.default": elu,
    "aten.selu.default": selu,
    "aten.celu.default": celu,
    "aten.leaky_relu.default": leaky_relu,
    "aten.rrelu.default": rrelu,
    "aten.rrelu_with_noise.default": rrelu_with_noise,
    "aten.rrelu_with_noise_functional.default": rrelu_with_noise_functional,
    "aten.prelu.default": prelu,
    "aten._prelu_kernel.default": prelu,
    "aten.softplus.default": softplus,
    "aten.log_sigmoid.default": log_sigmoid,
    "aten.log_sigmoid_forward.default": log_sigmoid_forward,
    "aten.hardshrink.default": hardshrink,
    "aten.softshrink.default": softshrink,
    "aten.threshold.default": threshold,
    "aten.glu.default": glu,
}
