"""Lowerings of pooling: a `View` that lays out the windows, then a `Reduce` over them.

The window's axes come last. Padding counts as -inf for maxima and as 0 for sums; the divisor of an
average is a constant, or computed from the window's position where windows differ.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir import offsets
from fusewright.ir.dtypes import DType, compute_type
from fusewright.ir.graph import Node, Shape
from fusewright.ir.index import Conds, Index
from fusewright.ir.scalar import identity

from .operands import NotLowered, add, convert, div, mul

Many = tuple[Node | None, ...]
Ints = Sequence[int] | int


@dataclass(frozen=True, slots=True)
class Windows:
    """Sliding windows over the last axes: for each its kernel, stride, padding, dilation, count."""

    kernel: Shape
    stride: Shape
    padding: Shape
    dilation: Shape
    count: Shape


def _each(values: Ints, rank: int) -> Shape:
    given = (values,) if isinstance(values, int) else tuple(values)
    return given * rank if len(given) == 1 else given


def windows(
    extents: Shape, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil_mode: bool
) -> Windows:
    """ATen's pooling shapes; with `ceil_mode` no window starts beyond the padded input."""
    rank = len(extents)
    k, p, d = (_each(v, rank) for v in (kernel, padding, dilation))
    s = _each(stride, rank) if isinstance(stride, int) or stride else k
    count = []
    for n, ki, si, pi, di in zip(extents, k, s, p, d, strict=True):
        span = n + 2 * pi - di * (ki - 1) - 1
        steps = (span + (si - 1 if ceil_mode else 0)) // si + 1
        if ceil_mode and (steps - 1) * si >= n + pi:
            steps -= 1
        count.append(steps)
    return Windows(k, s, p, d, tuple(count))


def _laid_out(x: Node, w: Windows, fill: float) -> Node:
    """(..., count..., kernel...): each window's elements on the trailing axes."""
    rank = len(w.kernel)
    shape = (*x.shape[:-rank], *w.count, *w.kernel)
    lead, at, valid = _window_index(x, w, shape)
    return g.view(x, shape, (*lead, *at), valid, fill)


def _window_index(
    x: Node, w: Windows, shape: Shape
) -> tuple[tuple[Index, ...], list[Index], Conds]:
    rank = len(w.kernel)
    axes = ix.axes(shape)
    lead, place, tap = axes[: -2 * rank], axes[-2 * rank : -rank], axes[-rank:]
    at = [
        i * s - p + k * d
        for i, k, s, p, d in zip(place, tap, w.stride, w.padding, w.dilation, strict=True)
    ]
    inside = [c for i, n in zip(at, x.shape[-rank:], strict=True) for c in ix.inside(i, n)]
    return lead, at, ix.conjunction(inside)


def _last(count: int, shape: Shape) -> range:
    return range(len(shape) - count, len(shape))


# ----------------------------------------------------------------------------------------- maximum


def max_pool(
    rank: int,
    x: Node,
    kernel: Ints,
    stride: Ints = (),
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
) -> Node:
    """The largest value of each window."""
    w = windows(x.shape[-rank:], kernel, stride, padding, dilation, ceil_mode)
    laid = _laid_out(x, w, identity("max", x.dtype))
    return g.reduce("max", laid, _last(rank, laid.shape))


def max_pool_with_indices(
    rank: int,
    x: Node,
    kernel: Ints,
    stride: Ints = (),
    padding: Ints = 0,
    dilation: Ints = 1,
    ceil_mode: bool = False,
) -> Many:
    """(values, their positions in the flattened spatial axes of x)."""
    w = windows(x.shape[-rank:], kernel, stride, padding, dilation, ceil_mode)
    laid = _laid_out(x, w, identity("max", x.dtype))
    values = g.reduce("max", laid, _last(rank, laid.shape))
    # A window of nothing but -inf needs ATen's own scan order when part of it is padding.
    if any(w.padding) or ceil_mode:
        return values, None
    flat = g.reshape(laid, (*values.shape, math.prod(w.kernel)))
    tap = g.arg_reduce("argmax", flat, len(flat.shape) - 1)
    return values, _position(x, w, tap)


def _position(x: Node, w: Windows, tap: Node) -> Node:
    """Flat spatial position in x of element `tap` of each window."""
    rank = len(w.kernel)
    strides = offsets.row_major(x.shape[-rank:])
    place = tap.axes[-rank:]
    start = offsets.flatten([i * s for i, s in zip(place, w.stride, strict=True)], strides)
    out = g.iota(start, tap.shape)
    rest = tap
    for n, d, step in reversed(list(zip(w.kernel, w.dilation, strides, strict=True))):
        extent = g.const(n, rest.dtype, rest.shape)
        within = g.binary("remainder", rest, extent)
        out = add(out, mul(within, d * step))
        rest = g.binary("floor_div", rest, extent)
    return out


# ----------------------------------------------------------------------------------------- average


def avg_pool(
    rank: int,
    x: Node,
    kernel: Ints,
    stride: Ints = (),
    padding: Ints = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Node:
    """The sum of each window divided by its size (with or without padding) or by the override."""
    if not x.dtype.is_float:
        raise NotLowered("average of integers")
    w = windows(x.shape[-rank:], kernel, stride, padding, 1, ceil_mode)
    laid = _laid_out(convert(x, compute_type(x.dtype)), w, 0.0)
    summed = g.reduce("sum", laid, _last(rank, laid.shape))
    if divisor_override is not None:
        return convert(div(summed, float(divisor_override)), x.dtype)
    counts = [
        _window_length(i, n, k, s, p, count_include_pad)
        for i, n, k, s, p in zip(
            summed.axes[-rank:], x.shape[-rank:], w.kernel, w.stride, w.padding, strict=True
        )
    ]
    return convert(div(summed, _product_of(counts, summed.shape, summed.dtype)), x.dtype)


def _window_length(i: Index, n: int, kernel: int, stride: int, padding: int, padded: bool) -> Index:
    """Elements of window i along one axis, the padding counted or not."""
    start = i * stride - padding
    end = ix.minimum(start + kernel, ix.const(n + padding))
    if padded:
        return end - start
    return ix.minimum(end, ix.const(n)) - ix.maximum(start, ix.const(0))


def _product_of(counts: Sequence[Index], shape: Shape, dtype: DType) -> Node:
    """The product of per-axis counts as a tensor."""
    out = g.const(1.0, dtype, shape)
    constant = 1
    for c in counts:
        if (value := ix.constant_value(c)) is not None:
            constant *= value
        else:
            out = mul(out, convert(g.iota(c, shape), dtype))
    if isinstance(out, g.Const):
        return g.const(float(constant), dtype, shape)
    return out if constant == 1 else mul(out, float(constant))


# ---------------------------------------------------------------------------------------- adaptive


def _adaptive_windows(x: Node, sizes: Shape, fill: float) -> tuple[Node, list[Index]]:
    """(windows laid out, their lengths): window i covers [floor(i n / m), ceil((i + 1) n / m))."""
    rank = len(sizes)
    extents = x.shape[-rank:]
    longest = tuple(
        max((-(-(i + 1) * n // m)) - i * n // m for i in range(m)) if m else 0
        for n, m in zip(extents, sizes, strict=True)
    )
    shape = (*x.shape[:-rank], *sizes, *longest)
    axes = ix.axes(shape)
    lead, place, tap = axes[: -2 * rank], axes[-2 * rank : -rank], axes[-rank:]
    at, valid, lengths = [], [], []
    for i, k, n, m in zip(place, tap, extents, sizes, strict=True):
        start, end = (i * n) // max(m, 1), ((i + 1) * n + max(m, 1) - 1) // max(m, 1)
        at.append(start + k)
        lengths.append(end - start if n % max(m, 1) else ix.const(n // max(m, 1)))
        if n % max(m, 1):
            valid.append(ix.less(start + k, end))
            valid.extend(ix.inside(start + k, n))
    return g.view(x, shape, (*lead, *at), ix.conjunction(valid), fill), lengths


def adaptive_avg_pool(rank: int, x: Node, sizes: Ints) -> Node:
    """The mean of each of `sizes` windows that together cover the input."""
    wanted = _each(sizes, rank)
    if not x.dtype.is_float or not x.size:
        raise NotLowered("average of integers or of nothing")
    laid, lengths = _adaptive_windows(convert(x, compute_type(x.dtype)), wanted, 0.0)
    summed = g.reduce("sum", laid, _last(rank, laid.shape))
    return convert(div(summed, _product_of(lengths, summed.shape, summed.dtype)), x.dtype)


def adaptive_max_pool(rank: int, x: Node, sizes: Ints) -> Many:
    """(the largest value of each window, -)."""
    if not x.size:
        raise NotLowered("maximum of nothing")
    laid, _ = _adaptive_windows(x, _each(sizes, rank), identity("max", x.dtype))
    return g.reduce("max", laid, _last(rank, laid.shape)), None


TABLE: Mapping[str, Callable[..., Node | Many]] = {
    **{f"aten.max_pool{k}d.default": partial(max_pool, k) for k in (1, 2, 3)},
    **{
        f"aten.max_pool{k}d_with_indices.default": partial(max_pool_with_indices, k)
        for k in (1, 2, 3)
    },
    **{f"aten.avg_pool{k}d.default": partial(avg_pool, k) for k in (1, 2, 3)},
    **{f"aten.adaptive_avg_pool{k}d.default": partial(adaptive_avg_pool, k) for k in (1, 2, 3)},
    **{f"aten._adaptive_avg_pool{k}d.default": partial(adaptive_avg_pool, k) for k in (2, 3)},
    **{f"aten.adaptive_max_pool{k}d.default": partial(adaptive_max_pool, k) for k in (1, 2, 3)},
}
