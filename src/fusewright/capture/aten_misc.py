"""Lowerings of tensors made from nothing and of dropout outside training.

Creation ignores layout, device and pinning: a value has none of these.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir.dtypes import BOOL, INT64, DType
from fusewright.ir.graph import Node, Scalar

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
}
