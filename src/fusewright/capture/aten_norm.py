"""Lowerings of normalisation layers, written out in sums and pointwise arithmetic.

Statistics are computed in the compute type. Running statistics of batch norm come back as results,
which export turns into mutations of the buffers.
"""

from collections.abc import Callable, Mapping, Sequence

from fusewright.ir import graph as g
from fusewright.ir.dtypes import DType, compute_type
from fusewright.ir.graph import Node

from .aten_reduce import extent_of, moments, spread
from .operands import (
    NotLowered,
    add,
    as_node,
    convert,
    div,
    mul,
    promote_types,
    rsqrt,
    sub,
)

Many = tuple[Node | None, ...]


def _wide(dtype: DType, *xs: Node | None) -> DType:
    """The type statistics are computed in; parameters may be wider than the data."""
    if not dtype.is_float:
        raise NotLowered("normalisation of integers")
    for x in xs:
        dtype = dtype if x is None else promote_types(dtype, x.dtype)
    return compute_type(dtype)


def _along(vector: Node | None, x: Node, axes: Sequence[int]) -> Node | None:
    """A parameter over `axes` of x, broadcast to x's shape in x's dtype."""
    if vector is None:
        return None
    shape = tuple(n if k in axes else 1 for k, n in enumerate(x.shape))
    return as_node(g.reshape(vector, shape), x.dtype, x.shape)


def _affine(x: Node, scale: Node | None, shift: Node | None) -> Node:
    out = x if scale is None else mul(x, scale)
    return out if shift is None else add(out, shift)


def _standardised(x: Node, axes: Sequence[int], eps: float) -> tuple[Node, Node, Node]:
    """((x - mean) / sqrt(var + eps), mean, 1 / sqrt(var + eps)) over `axes`; biased variance."""
    variance, centre = moments(x, axes, 0)
    scale = rsqrt(add(variance, eps))
    return mul(sub(x, spread(centre, axes, x)), spread(scale, axes, x)), centre, scale


# ------------------------------------------------------------------------------ over the last axes


def native_layer_norm(
    x: Node,
    normalized_shape: Sequence[int],
    weight: Node | None,
    bias: Node | None,
    eps: float,
) -> Many:
    """(y, mean, rstd), the statistics with extent 1 on the normalised axes. arXiv:1607.06450."""
    rank = len(x.shape)
    axes = tuple(range(rank - len(normalized_shape), rank))
    if not extent_of(x, axes):
        raise NotLowered("layer norm over nothing")
    wide = convert(x, _wide(x.dtype, weight, bias))
    unit, centre, scale = _standardised(wide, axes, eps)
    y = _affine(unit, _along(weight, wide, axes), _along(bias, wide, axes))
    return convert(y, x.dtype), g.keep_axes(centre, axes), g.keep_axes(scale, axes)


def layer_norm(
    x: Node,
    normalized_shape: Sequence[int],
    weight: Node | None = None,
    bias: Node | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Node:
    return _first(native_layer_norm(x, normalized_shape, weight, bias, eps))


def _first(results: Many) -> Node:
    (first, *_) = results
    if first is None:
        raise NotLowered("no value")
    return first


def rms_norm(
    x: Node, normalized_shape: Sequence[int], weight: Node | None = None, eps: float | None = None
) -> Node:
    """`x / sqrt(mean(x^2) + eps) * weight`; arXiv:1910.07467. eps defaults to the type's."""
    rank = len(x.shape)
    axes = tuple(range(rank - len(normalized_shape), rank))
    if not extent_of(x, axes):
        raise NotLowered("rms norm over nothing")
    if weight is not None and weight.dtype != x.dtype:
        raise NotLowered("rms norm with a weight of another dtype, whose result versions differ in")
    wide = convert(x, _wide(x.dtype))
    # ATen takes the epsilon of the type it computes in: twice our unit roundoff.
    small = 2 * wide.dtype.eps if eps is None else eps
    power = div(g.reduce("sum", mul(wide, wide), axes), float(extent_of(x, axes)))
    unit = mul(wide, spread(rsqrt(add(power, small)), axes, wide))
    return convert(_affine(unit, _along(weight, wide, axes), None), x.dtype)


def native_group_norm(
    x: Node,
    weight: Node | None,
    bias: Node | None,
    batch: int,
    channels: int,
    inner: int,
    groups: int,
    eps: float,
) -> Many:
    """(y, mean, rstd), the statistics (batch, groups). arXiv:1803.08494."""
    wide_type = _wide(x.dtype, weight, bias)
    if not x.size:
        raise NotLowered("group norm over nothing")
    grouped = g.reshape(convert(x, wide_type), (batch, groups, channels // groups, inner))
    unit, centre, scale = _standardised(grouped, (2, 3), eps)
    whole = g.reshape(unit, x.shape)
    y = _affine(whole, _along(weight, whole, (1,)), _along(bias, whole, (1,)))
    return convert(y, x.dtype), convert(centre, x.dtype), convert(scale, x.dtype)


def group_norm(
    x: Node,
    groups: int,
    weight: Node | None = None,
    bias: Node | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Node:
    batch, channels = x.shape[:2]
    inner = x.size // (batch * channels) if x.size else 0
    return _first(native_group_norm(x, weight, bias, batch, channels, inner, groups, eps))


# -------------------------------------------------------------------------------------- batch norm


def _other_axes(x: Node) -> tuple[int, ...]:
    """Every axis but the channels."""
    return tuple(k for k in range(len(x.shape)) if k != 1)


def _inference(
    x: Node,
    weight: Node | None,
    bias: Node | None,
    mean: Node,
    variance: Node,
    eps: float,
) -> Node:
    """y by given statistics."""
    wide = convert(x, _wide(x.dtype, weight, bias, mean))
    scale = rsqrt(add(convert(variance, wide.dtype), eps))
    centre = _along(mean, wide, (1,))
    spread_ = _along(scale, wide, (1,))
    if centre is None or spread_ is None:
        raise NotLowered("no statistics")
    unit = mul(sub(wide, centre), spread_)
    y = _affine(unit, _along(weight, wide, (1,)), _along(bias, wide, (1,)))
    return convert(y, x.dtype)


def batch_norm_no_training(
    x: Node,
    weight: Node | None,
    bias: Node | None,
    running_mean: Node,
    running_var: Node,
    momentum: float,
    eps: float,
) -> Many:
    """(y, -, -): the saved statistics are empty on the CPU and of no use forward."""
    return _inference(x, weight, bias, running_mean, running_var, eps), None, None


def _training(
    x: Node, weight: Node | None, bias: Node | None, eps: float, like: Node | None
) -> tuple[Node, Node, Node]:
    """(y, mean, unbiased variance) by the statistics of the batch. arXiv:1502.03167."""
    axes = _other_axes(x)
    if not x.size:
        raise NotLowered("batch norm over nothing")
    wide = convert(x, _wide(x.dtype, weight, bias, like))
    variance, centre = moments(wide, axes, 0)
    scale = rsqrt(add(variance, eps))
    unit = mul(sub(wide, spread(centre, axes, wide)), spread(scale, axes, wide))
    y = _affine(unit, _along(weight, wide, (1,)), _along(bias, wide, (1,)))
    count = extent_of(x, axes)
    unbiased = mul(variance, count / (count - 1)) if count > 1 else div(mul(variance, 1.0), 0.0)
    return convert(y, x.dtype), centre, unbiased


def _updated(running: Node, batch: Node, momentum: float) -> Node:
    """`(1 - momentum) running + momentum batch` in the buffer's dtype."""
    wide = compute_type(running.dtype)
    old, new = convert(running, wide), convert(batch, wide)
    return convert(add(mul(new, momentum), mul(old, 1 - momentum)), running.dtype)


def batch_norm_functional(
    x: Node,
    weight: Node | None,
    bias: Node | None,
    running_mean: Node,
    running_var: Node,
    training: bool,
    momentum: float,
    eps: float,
) -> Many:
    """(y, -, -, new running mean, new running variance); the others serve backward passes."""
    if not training:
        y = _inference(x, weight, bias, running_mean, running_var, eps)
        return y, None, None, running_mean, running_var
    y, centre, unbiased = _training(x, weight, bias, eps, running_mean)
    means = _updated(running_mean, centre, momentum)
    return y, None, None, means, _updated(running_var, unbiased, momentum)


def batch_norm_no_stats(
    x: Node,
    weight: Node | None,
    bias: Node | None,
    training: bool,
    momentum: float,
    eps: float,
) -> Many:
    """(y, -, -) without running statistics."""
    return _training(x, weight, bias, eps, None)[0], None, None


TABLE: Mapping[str, Callable[..., Node | Many]] = {
    "aten.layer_norm.default": layer_norm,
    "aten.native_layer_norm.default": native_layer_norm,
    "aten.rms_norm.default": rms_norm,
    "aten.group_norm.default": group_norm,
    "aten.native_group_norm.default": native_group_norm,
    "aten._native_batch_norm_legit_no_training.default": batch_norm_no_training,
    "aten._native_batch_norm_legit_functional.default": batch_norm_functional,
    "aten._native_batch_norm_legit.no_stats": batch_norm_no_stats,
}
