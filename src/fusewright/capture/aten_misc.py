"""Lowerings of tensors made from nothing, of dropout outside training, and of resampling.

Creation ignores layout, device and pinning: a value has none of these.
"""

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir.dtypes import BOOL, INT64, DType
from fusewright.ir.graph import Node, Scalar
from fusewright.ir.index import Index

from .operands import (
    NotLowered,
    Number,
    Operand,
    add,
    as_node,
    convert,
    default_float,
    mul,
    promote,
)

Many = tuple[Node | None, ...]


# ---------------------------------------------------------------------------------------- creation


def full(
    size: Sequence[int], value: Scalar | Number, *, dtype: DType | None = None, **_: object
) -> Node:
    """`value` everywhere; the dtype follows the value unless given."""
    return as_node(value, dtype or promote(value), tuple(size))


def zeros(size: Sequence[int], *, dtype: DType | None = None, **_: object) -> Node:
    return g.const(0, dtype or default_float(), tuple(size))


def ones(size: Sequence[int], *, dtype: DType | None = None, **_: object) -> Node:
    return g.const(1, dtype or default_float(), tuple(size))


def empty_permuted(
    size: Sequence[int], order: Sequence[int], *, dtype: DType | None = None, **_: object
) -> Node:
    return zeros(size, dtype=dtype)


def empty_strided(
    size: Sequence[int], stride: Sequence[int], *, dtype: DType | None = None, **_: object
) -> Node:
    return zeros(size, dtype=dtype)


def full_like(x: Node, value: Scalar | Number, *, dtype: DType | None = None, **_: object) -> Node:
    return as_node(value, dtype or x.dtype, x.shape)


def zeros_like(x: Node, *, dtype: DType | None = None, **_: object) -> Node:
    return g.const(0, dtype or x.dtype, x.shape)


def ones_like(x: Node, *, dtype: DType | None = None, **_: object) -> Node:
    return g.const(1, dtype or x.dtype, x.shape)


def new_full(
    x: Node, size: Sequence[int], value: Scalar | Number, *, dtype: DType | None = None, **_: object
) -> Node:
    return as_node(value, dtype or x.dtype, tuple(size))


def new_zeros(x: Node, size: Sequence[int], *, dtype: DType | None = None, **_: object) -> Node:
    return g.const(0, dtype or x.dtype, tuple(size))


def new_ones(x: Node, size: Sequence[int], *, dtype: DType | None = None, **_: object) -> Node:
    return g.const(1, dtype or x.dtype, tuple(size))


def fill(x: Node, value: Operand) -> Node:
    return as_node(value, x.dtype, x.shape)


def scalar_tensor(value: Scalar | Number, *, dtype: DType | None = None, **_: object) -> Node:
    return as_node(value, dtype or default_float())


def arange_to(end: Scalar, *, dtype: DType | None = None, **kwargs: object) -> Node:
    return arange(0, end, 1, dtype=dtype)


def arange(
    start: Scalar, end: Scalar, step: Scalar = 1, *, dtype: DType | None = None, **_: object
) -> Node:
    """start, start + step, ... before end; floats when any of the three is one."""
    whole = all(isinstance(v, int) for v in (start, end, step))
    out = dtype or (INT64 if whole else default_float())
    count = max(0, math.ceil((Fraction(end) - Fraction(start)) / Fraction(step)))
    (i,) = ix.axes((count,))
    if whole:
        return convert(g.iota(i * int(step) + int(start), (count,)), out)
    if not out.is_float or out.bits == 16:
        raise NotLowered("an integer or half range with fractional bounds")
    return add(mul(convert(g.iota(i, (count,)), out), float(step)), float(start))


def eye(n: int, m: int | None = None, *, dtype: DType | None = None, **_: object) -> Node:
    """Ones on the diagonal."""
    shape = (n, n if m is None else m)
    i, j = ix.axes(shape)
    one = g.const(1, dtype or default_float())
    return g.view(one, shape, (), ix.conjunction((ix.equals(i, j),)), 0)


# ----------------------------------------------------------------------------------------- dropout


def dropout(x: Node, p: float, train: bool) -> Node:
    """The identity unless it draws random numbers."""
    if train and p > 0 and x.size:
        raise NotLowered("random")
    return x


def native_dropout(x: Node, p: float, train: bool | None) -> Many:
    if train is not False and p > 0 and x.size:
        raise NotLowered("random")
    return x, g.const(True, BOOL, x.shape)


# -------------------------------------------------------------------------------------- resampling


def upsample_nearest(x: Node, sizes: Sequence[int], *scales: float | None) -> Node:
    """Output position i reads floor(i * n / m) of n input positions."""
    rank = len(sizes)
    extents = x.shape[-rank:]
    given = scales if len(scales) == rank else (None,) * rank
    shape = (*x.shape[:-rank], *sizes)
    axes = ix.axes(shape)
    at = [
        _nearest(i, n, m, s) for i, n, m, s in zip(axes[-rank:], extents, sizes, given, strict=True)
    ]
    return g.view(x, shape, (*axes[:-rank], *at))


def _nearest(i: Index, n: int, m: int, scale: float | None) -> Index:
    """The exact rational position, if the float arithmetic of ATen agrees with it everywhere."""
    ratio = Fraction(n, m) if scale is None or scale <= 0 else 1 / Fraction(scale)
    ratio = ratio.limit_denominator(1 << 16)
    step = _single(n / m if scale is None or scale <= 0 else 1.0 / scale)
    for k in range(m):
        if min(int(_single(k * step)), n - 1) != min(int(k * ratio), n - 1):
            raise NotLowered("rounding of the scale decides which element is nearest")
    return ix.minimum((i * ratio.numerator) // ratio.denominator, ix.const(n - 1))


def _single(value: float) -> float:
    """Rounded to float32, in which ATen computes source positions."""
    return struct.unpack("f", struct.pack("f", value))[0]


def upsample_nearest_vec(
    x: Node, sizes: Sequence[int] | None, scales: Sequence[float] | None
) -> Node:
    """Given either output sizes or scale factors."""
    rank = len(x.shape) - 2
    if sizes is not None:
        return upsample_nearest(x, sizes)
    if scales is None:
        raise NotLowered("neither sizes nor scales")
    wanted = [int(n * s) for n, s in zip(x.shape[-rank:], scales, strict=True)]
    return upsample_nearest(x, wanted, *scales)


TABLE: Mapping[str, Callable[..., Node | Many]] = {
    "aten.full.default": full,
    "aten.zeros.default": zeros,
    "aten.ones.default": ones,
    "aten.empty.memory_format": zeros,
    "aten.empty_permuted.default": empty_permuted,
    "aten.empty_strided.default": empty_strided,
    "aten.full_like.default": full_like,
    "aten.zeros_like.default": zeros_like,
    "aten.ones_like.default": ones_like,
    "aten.empty_like.default": zeros_like,
    "aten.new_full.default": new_full,
    "aten.new_zeros.default": new_zeros,
    "aten.new_ones.default": new_ones,
    "aten.new_empty.default": new_zeros,
    "aten.fill.Scalar": fill,
    "aten.fill.Tensor": fill,
    "aten.scalar_tensor.default": scalar_tensor,
    "aten.arange.default": arange_to,
    "aten.arange.start": arange,
    "aten.arange.start_step": arange,
    "aten.eye.default": eye,
    "aten.eye.m": eye,
    "aten.dropout.default": dropout,
    "aten.native_dropout.default": native_dropout,
    **{f"aten.{op}.default": dropout for op in ("feature_dropout", "alpha_dropout")},
    "aten.feature_alpha_dropout.default": dropout,
    **{f"aten.upsample_nearest{k}d.default": upsample_nearest for k in (1, 2, 3)},
    **{f"aten.upsample_nearest{k}d.vec": upsample_nearest_vec for k in (1, 2, 3)},
}
