"""Lowerings of resampling: nearest neighbours as a `View`, linear ones as a blend of views.

Source positions are exact rationals where ATen rounds them in float32.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir.dtypes import compute_type
from fusewright.ir.graph import Node, Shape
from fusewright.ir.index import Index

from .operands import NotLowered, add, convert, mul, sub

LARGEST_DENOMINATOR = 1 << 16


def _ratio(n: int, m: int, scale: float | None) -> Fraction:
    """Input positions per output position."""
    if scale is None or scale <= 0:
        return Fraction(n, m)
    return (1 / Fraction(scale)).limit_denominator(LARGEST_DENOMINATOR)


def _sizes(x: Node, sizes: Sequence[int] | None, scales: Sequence[float] | None) -> list[int]:
    """Output extents, given themselves or as factors."""
    if sizes is not None:
        return list(sizes)
    if scales is None:
        raise NotLowered("neither sizes nor scales")
    extents = x.shape[-len(scales) :]
    return [int(n * s) for n, s in zip(extents, scales, strict=True)]


# ----------------------------------------------------------------------------------------- nearest


def nearest(x: Node, sizes: Sequence[int], *scales: float | None) -> Node:
    """Output position i reads floor(i * n / m) of n input positions."""
    rank = len(sizes)
    given = scales if len(scales) == rank else (None,) * rank
    shape = (*x.shape[:-rank], *sizes)
    axes = ix.axes(shape)
    at = [
        _nearest(i, n, m, s)
        for i, n, m, s in zip(axes[-rank:], x.shape[-rank:], sizes, given, strict=True)
    ]
    return g.view(x, shape, (*axes[:-rank], *at))


def _nearest(i: Index, n: int, m: int, scale: float | None) -> Index:
    """The exact rational position, if the float arithmetic of ATen agrees with it everywhere."""
    ratio = _ratio(n, m, scale)
    step = _single(n / m if scale is None or scale <= 0 else 1.0 / scale)
    for k in range(m):
        if min(int(_single(k * step)), n - 1) != min(int(k * ratio), n - 1):
            raise NotLowered("rounding of the scale decides which element is nearest")
    return ix.minimum((i * ratio.numerator) // ratio.denominator, ix.const(n - 1))


def _single(value: float) -> float:
    """Rounded to float32, in which ATen computes source positions."""
    return struct.unpack("f", struct.pack("f", value))[0]


def nearest_vec(x: Node, sizes: Sequence[int] | None, scales: Sequence[float] | None) -> Node:
    """Given either output sizes or scale factors."""
    return nearest(x, _sizes(x, sizes, scales), *(scales or ()))


# ------------------------------------------------------------------------------------------ linear


@dataclass(frozen=True, slots=True)
class _Line:
    """Where an axis reads: `numerator / denominator` positions into the input, clamped at 0."""

    numerator: Index
    denominator: int
    extent: int

    @property
    def below(self) -> Index:
        return ix.minimum(self.numerator // self.denominator, ix.const(self.extent - 1))

    @property
    def above(self) -> Index:
        return ix.minimum(self.numerator // self.denominator + 1, ix.const(self.extent - 1))

    def weight(self, like: Node) -> Node:
        """How far the position is from `below` to `above`, in [0, 1)."""
        rest = convert(g.iota(self.numerator % self.denominator, like.shape), like.dtype)
        return mul(rest, 1.0 / self.denominator)


def _line(i: Index, n: int, m: int, scale: float | None, align_corners: bool) -> _Line:
    """Corners aligned: i (n - 1) / (m - 1); else (i + 1/2) n / m - 1/2, not below 0."""
    if align_corners:
        return _Line(i * (n - 1), max(m - 1, 1), n)
    ratio = _ratio(n, m, scale)
    p, q = ratio.numerator, ratio.denominator
    return _Line(ix.maximum(i * (2 * p) + (p - q), ix.const(0)), 2 * q, n)


def linear(
    rank: int, x: Node, sizes: Sequence[int], align_corners: bool, *scales: float | None
) -> Node:
    """Linear, bilinear, trilinear: one axis after the other, the last first."""
    if not x.dtype.is_float or not x.size:
        raise NotLowered("interpolation of integers or of nothing")
    given = scales if len(scales) == rank else (None,) * rank
    wide = convert(x, compute_type(x.dtype))
    for axis in reversed(range(rank)):
        k = len(x.shape) - rank + axis
        shape: Shape = (*wide.shape[:k], sizes[axis], *wide.shape[k + 1 :])
        i = ix.axis(k, sizes[axis])
        line = _line(i, x.shape[k], sizes[axis], given[axis], align_corners)
        wide = _blended(wide, shape, k, line)
    return convert(wide, x.dtype)


def _blended(x: Node, shape: Shape, axis: int, line: _Line) -> Node:
    """`(1 - w) x[below] + w x[above]` along one axis."""
    axes = ix.axes(shape)
    below, above = (
        g.view(x, shape, (*axes[:axis], at, *axes[axis + 1 :])) for at in (line.below, line.above)
    )
    weight = line.weight(below)
    return add(mul(below, sub(1.0, weight)), mul(above, weight))


def linear_vec(
    rank: int,
    x: Node,
    sizes: Sequence[int] | None,
    align_corners: bool,
    scales: Sequence[float] | None,
) -> Node:
    """Given either output sizes or scale factors."""
    return linear(rank, x, _sizes(x, sizes, scales), align_corners, *(scales or ()))


_LINEAR = {"linear1d": 1, "bilinear2d": 2, "trilinear3d": 3}

TABLE: Mapping[str, Callable[..., Node]] = {
    **{f"aten.upsample_nearest{k}d.default": nearest for k in (1, 2, 3)},
    **{f"aten.upsample_nearest{k}d.vec": nearest_vec for k in (1, 2, 3)},
    **{f"aten.upsample_{name}.default": partial(linear, k) for name, k in _LINEAR.items()},
    **{f"aten.upsample_{name}.vec": partial(linear_vec, k) for name, k in _LINEAR.items()},
}
