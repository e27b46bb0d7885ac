"""Lowerings of reductions: sums, extremes, moments, norms, softmax and its logarithm.

16-bit floats are folded in float32 and rounded once; integers are summed in int64. Normalisation
layers are in `aten_norm`, cumulative ops in `aten_scan`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod

from fusewright.ir import graph as g
from fusewright.ir.dtypes import BOOL, FLOAT16, FLOAT32, DType, compute_type, sum_type
from fusewright.ir.graph import Node, Scalar

from .operands import (
    NotLowered,
    absolute,
    add,
    axis_of,
    choose,
    convert,
    default_float,
    div,
    eq,
    exp,
    log,
    maximum,
    mul,
    pointwise,
    power,
    shape_axes,
    sqrt,
    sub,
)

Dims = int | Sequence[int] | None


def fold(op: str, x: Node, axes: Sequence[int], keepdim: bool) -> Node:
    """`g.reduce`, with the reduced axes kept at extent 1 on demand."""
    out = g.reduce(op, x, axes)
    return g.keep_axes(out, axes) if keepdim else out


def spread(reduced: Node, axes: Sequence[int], like: Node) -> Node:
    """A reduction's result broadcast back to the shape it was reduced from."""
    return g.insert_expanded(reduced, axes, like.shape)


def extent_of(x: Node, axes: Sequence[int]) -> int:
    """Number of elements folded into one."""
    return prod(x.shape[a] for a in axes)


# --------------------------------------------------------------------------------- sums and means


def total(x: Node, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None) -> Node:
    """`aten.sum`: integers and bools give int64."""
    out = dtype or (x.dtype if x.dtype.is_float else sum_type(x.dtype))
    if out == BOOL:
        raise NotLowered("sum as bool")
    axes = shape_axes(len(x.shape), dim)
    return convert(fold("sum", convert(x, compute_type(out)), axes, keepdim), out)


def mean(x: Node, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None) -> Node:
    """The sum divided by the count; NaN over nothing."""
    out = dtype or x.dtype
    if not out.is_float:
        raise NotLowered("mean of integers")
    axes = shape_axes(len(x.shape), dim)
    count = extent_of(x, axes)
    summed = fold("sum", convert(x, compute_type(out)), axes, keepdim)
    return convert(div(summed, float(count)), out)


def product(
    x: Node, dim: int | None = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Node:
    """`aten.prod`: integers and bools give int64."""
    out = dtype or (x.dtype if x.dtype.is_float else sum_type(x.dtype))
    if out == BOOL:
        raise NotLowered("product as bool")
    axes = shape_axes(len(x.shape), dim)
    return convert(fold("prod", convert(x, compute_type(out)), axes, keepdim), out)


def truth(op: str, x: Node, dim: Dims = None, keepdim: bool = False) -> Node:
    """`any` and `all` of the truth values; uint8 in gives uint8 out, as torch keeps it."""
    given = () if isinstance(dim, Sequence) and not dim else shape_axes(len(x.shape), dim)
    out = fold(op, convert(x, BOOL), given, keepdim)
    return convert(out, x.dtype) if x.dtype.name == "uint8" else out


# --------------------------------------------------------------------------------------- extremes


def extreme(op: str, x: Node, dim: Dims = None, keepdim: bool = False) -> Node:
    """amax and amin."""
    axes = shape_axes(len(x.shape), dim)
    if not extent_of(x, axes):
        raise NotLowered("extreme of nothing")
    return fold(op, x, axes, keepdim)


def extreme_and_index(op: str, x: Node, dim: int, keepdim: bool = False) -> tuple[Node | None, ...]:
    """(values, indices) of max and min along one axis."""
    return extreme(op, x, dim, keepdim), arg_extreme(f"arg{op}", x, dim, keepdim)


def arg_extreme(op: str, x: Node, dim: int | None = None, keepdim: bool = False) -> Node:
    """argmax and argmin; without `dim` over the flattened tensor."""
    rank = len(x.shape)
    if dim is None:
        flat = g.arg_reduce(op, g.reshape(x, (x.size,)), 0)
        return g.reshape(flat, (1,) * rank) if keepdim else flat
    if not rank:
        return g.const(0, g.INT64)
    axis = axis_of(rank, dim)
    out = g.arg_reduce(op, x, axis)
    return g.keep_axes(out, (axis,)) if keepdim else out


def aminmax(x: Node, *, dim: int | None = None, keepdim: bool = False) -> tuple[Node | None, ...]:
    return extreme("min", x, dim, keepdim), extreme("max", x, dim, keepdim)


# ---------------------------------------------------------------------------------------- moments


def moments(x: Node, axes: Sequence[int], correction: float) -> tuple[Node, Node]:
    """(variance, mean) over `axes` in two passes: the mean, then the mean squared distance."""
    count = extent_of(x, axes)
    centre = div(g.reduce("sum", x, axes), float(count))
    away = sub(x, spread(centre, axes, x))
    squares = g.reduce("sum", mul(away, away), axes)
    return div(squares, max(count - correction, 0.0)), centre


def _moments(x: Node, dim: Dims, correction: float | None, keepdim: bool) -> tuple[Node, Node]:
    if not x.dtype.is_float:
        raise NotLowered("variance of integers")
    axes = shape_axes(len(x.shape), dim)
    wide = convert(x, compute_type(x.dtype))
    spread_, centre = moments(wide, axes, 1 if correction is None else correction)
    if keepdim:
        spread_, centre = g.keep_axes(spread_, axes), g.keep_axes(centre, axes)
    return spread_, centre


def var(
    x: Node, dim: Dims = None, *, correction: float | None = None, keepdim: bool = False
) -> Node:
    return convert(_moments(x, dim, correction, keepdim)[0], x.dtype)


def std(
    x: Node, dim: Dims = None, *, correction: float | None = None, keepdim: bool = False
) -> Node:
    return convert(sqrt(_moments(x, dim, correction, keepdim)[0]), x.dtype)


def var_mean(
    x: Node, dim: Dims = None, *, correction: float | None = None, keepdim: bool = False
) -> tuple[Node | None, ...]:
    spread_, centre = _moments(x, dim, correction, keepdim)
    return convert(spread_, x.dtype), convert(centre, x.dtype)


def std_mean(
    x: Node, dim: Dims = None, *, correction: float | None = None, keepdim: bool = False
) -> tuple[Node | None, ...]:
    spread_, centre = _moments(x, dim, correction, keepdim)
    return convert(sqrt(spread_), x.dtype), convert(centre, x.dtype)


# ------------------------------------------------------------------------------------------ norms


def vector_norm(
    x: Node,
    order: float = 2,
    dim: Dims = None,
    keepdim: bool = False,
    *,
    dtype: DType | None = None,
) -> Node:
    """`aten.linalg_vector_norm`: (sum |x|^p)^(1/p) with its limits p = 0, inf and -inf."""
    out = dtype or x.dtype
    if not x.dtype.is_float or not out.is_float:
        raise NotLowered("norm of integers")
    axes = shape_axes(len(x.shape), dim)
    if math.isinf(order) and not extent_of(x, axes):
        raise NotLowered("extreme of nothing")
    wide = convert(x, compute_type(out))
    return convert(_norm(wide, float(order), axes, keepdim), out)


def _norm(x: Node, order: float, axes: Sequence[int], keepdim: bool) -> Node:
    if order == 2:
        return sqrt(fold("sum", mul(x, x), axes, keepdim))
    if order == 0:
        counted = convert(g.binary("ne", x, g.const(0.0, x.dtype, x.shape)), x.dtype)
        return fold("sum", counted, axes, keepdim)
    size = absolute(x)
    if order == 1:
        return fold("sum", size, axes, keepdim)
    if math.isinf(order):
        return fold("max" if order > 0 else "min", size, axes, keepdim)
    return power(fold("sum", power(size, order), axes, keepdim), 1.0 / order)


# -------------------------------------------------------------------------- exponentials over rows


def logsumexp(x: Node, dim: Dims, keepdim: bool = False) -> Node:
    """`log(sum(exp(x)))`, the maximum taken out first unless it is infinite."""
    out = x.dtype if x.dtype.is_float else default_float()
    wide = convert(x, compute_type(out))
    axes = shape_axes(len(x.shape), dim)
    if not extent_of(x, axes):
        summed = fold("sum", exp(wide), axes, keepdim)
        return convert(log(summed), out)
    top = g.reduce("max", wide, axes)
    shift = choose(eq(absolute(top), math.inf), 0.0, top)
    summed = g.reduce("sum", exp(sub(wide, spread(shift, axes, wide))), axes)
    value = convert(add(log(summed), shift), out)
    return g.keep_axes(value, axes) if keepdim else value


def _row(x: Node, dim: int, dtype: DType | None, half_to_float: bool) -> tuple[Node, int, DType]:
    """(x in its compute type, the axis, the result's dtype) of a softmax."""
    out = FLOAT32 if half_to_float and x.dtype == FLOAT16 else dtype or x.dtype
    if not out.is_float:
        raise NotLowered("softmax of integers")
    source = x if dtype is None else convert(x, out)
    return convert(source, compute_type(out)), axis_of(len(x.shape), dim), out


def _exponentials(x: Node, axis: int) -> tuple[Node, Node, Node]:
    """(x - max, exp of it, its sum spread over the row)."""
    if not x.size:
        return x, x, x
    axes = () if not x.shape else (axis,)
    shifted = sub(x, spread(g.reduce("max", x, axes), axes, x)) if axes else sub(x, x)
    raised = exp(shifted)
    summed = spread(g.reduce("sum", raised, axes), axes, x) if axes else raised
    return shifted, raised, summed


def softmax(x: Node, dim: int, dtype: DType | None = None, *, half_to_float: bool = False) -> Node:
    """`exp(x - max) / sum(exp(x - max))`."""
    wide, axis, out = _row(x, dim, dtype, half_to_float)
    _, raised, summed = _exponentials(wide, axis)
    return convert(div(raised, summed), out)


def safe_softmax(x: Node, dim: int, dtype: DType | None = None) -> Node:
    """softmax with 0 instead of NaN in rows that are -inf throughout."""
    value = softmax(x, dim, dtype)
    axis = axis_of(len(x.shape), dim)
    masked = eq(g.reduce("max", convert(x, compute_type(x.dtype)), (axis,)), -math.inf)
    return choose(spread(masked, (axis,), x), 0.0, value)


def log_softmax(
    x: Node, dim: int, dtype: DType | None = None, *, half_to_float: bool = False
) -> Node:
    """`(x - max) - log(sum(exp(x - max)))`."""
    wide, axis, out = _row(x, dim, dtype, half_to_float)
    shifted, _, summed = _exponentials(wide, axis)
    return convert(sub(shifted, log(summed)), out)


def _inner_softmax(function: Callable[..., Node], x: Node, dim: int, half_to_float: bool) -> Node:
    """`aten._softmax` and `aten._log_softmax`, whose third argument is half_to_float."""
    return function(x, dim, half_to_float=half_to_float)


def cosine_similarity(a: Node, b: Node, dim: int = 1, eps: float = 1e-8) -> Node:
    """`sum(a b) / (max(|a|, eps) max(|b|, eps))` along `dim`."""

    def formula(x: Node, y: Node) -> Node:
        axes = shape_axes(len(x.shape), dim)
        sizes = [maximum(sqrt(g.reduce("sum", mul(v, v), axes)), eps) for v in (x, y)]
        scaled = [div(v, spread(s, axes, v)) for v, s in zip((x, y), sizes, strict=True)]
        return g.reduce("sum", mul(*scaled), axes)

    return pointwise(formula, a, b)


def count_nonzero(x: Node, dim: Dims = None) -> Node:
    axes = shape_axes(len(x.shape), dim)
    return g.reduce("sum", convert(convert(x, BOOL), g.INT64), axes)


Table = Mapping[str, Callable[..., Node | tuple[Node | None, ...]]]


def _named(prefix: str, overloads: Sequence[str], lowering: Callable[..., object]) -> dict:
    return {f"aten.{prefix}.{o}": lowering for o in overloads}


_DEFAULT_DIM = ("default", "dim")
_DEFAULT_DIM_DIMS = ("default", "dim", "dims")

TABLE: Table = {
    **_named("sum", ("default", "dim_IntList"), total),
    **_named("mean", _DEFAULT_DIM, mean),
    **_named("prod", ("default", "dim_int"), product),
    **_named("any", _DEFAULT_DIM_DIMS, partial(truth, "any")),
    **_named("all", _DEFAULT_DIM_DIMS, partial(truth, "all")),
    "aten.amax.default": partial(extreme, "max"),
    "aten.amin.default": partial(extreme, "min"),
    "aten.max.default": partial(extreme, "max"),
    "aten.min.default": partial(extreme, "min"),
    "aten.max.dim": partial(extreme_and_index, "max"),
    "aten.min.dim": partial(extreme_and_index, "min"),
    "aten.argmax.default": partial(arg_extreme, "argmax"),
    "aten.argmin.default": partial(arg_extreme, "argmin"),
    "aten.aminmax.default": aminmax,
    "aten.var.correction": var,
    "aten.std.correction": std,
    "aten.var_mean.correction": var_mean,
    "aten.std_mean.correction": std_mean,
    "aten.linalg_vector_norm.default": vector_norm,
    "aten.logsumexp.default": logsumexp,
    "aten.softmax.int": softmax,
    "aten._softmax.default": partial(_inner_softmax, softmax),
    "aten._safe_softmax.default": safe_softmax,
    "aten.log_softmax.int": log_softmax,
    "aten._log_softmax.default": partial(_inner_softmax, log_softmax),
    "aten.cosine_similarity.default": cosine_similarity,
    **_named("count_nonzero", ("default", "dim_IntList"), count_nonzero),
}

__all__ = ["TABLE", "Dims", "Scalar", "extent_of", "fold", "moments", "spread"]
