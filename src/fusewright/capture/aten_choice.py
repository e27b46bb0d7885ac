"""Lowerings of elementwise choices, clamps, copies and conversions."""

from collections.abc import Callable, Mapping

from fusewright.ir import graph as g
from fusewright.ir.dtypes import BOOL, DType
from fusewright.ir.graph import Device, Node, Verbatim

from .operands import (
    NotLowered,
    Operand,
    as_node,
    broadcast_shapes,
    convert,
    maximum,
    minimum,
    pointwise,
    promote,
)


def where(cond: Node, a: Operand, b: Operand) -> Node:
    """`a if cond else b` in their promoted type."""
    dtype = promote(a, b)
    shape = broadcast_shapes(cond.shape, *(x.shape for x in (a, b) if isinstance(x, Node)))
    test = as_node(cond, BOOL, shape)
    return g.where(test, as_node(a, dtype, shape), as_node(b, dtype, shape))


def masked_fill(x: Node, mask: Node, value: Operand) -> Node:
    """`value` where `mask` holds, in x's dtype."""
    shape = broadcast_shapes(x.shape, mask.shape)
    new = as_node(value, x.dtype, shape)
    return g.where(as_node(mask, BOOL, shape), new, as_node(x, x.dtype, shape))


def clamp(x: Node, low: Operand | None = None, high: Operand | None = None) -> Node:
    """`min(max(x, low), high)`; NaN stays NaN."""
    bounds = [b for b in (low, high) if b is not None]
    dtype = promote(x, *bounds)

    def formula(v: Node, *rest: Node) -> Node:
        at = iter(rest)
        v = v if low is None else maximum(v, next(at))
        return v if high is None else minimum(v, next(at))

    return pointwise(formula, x, *bounds, dtype=dtype)


def clamp_max(x: Node, high: Operand) -> Node:
    return clamp(x, None, high)


def identity(x: Node, *_: object, **__: object) -> Node:
    """Copies, aliases and layout changes: values are the same."""
    return x


def to_copy(
    x: Node,
    *,
    dtype: DType | None = None,
    layout: Verbatim | None = None,
    device: Device | None = None,
    pin_memory: bool | None = None,
    non_blocking: bool = False,
    memory_format: Verbatim | None = None,
) -> Node:
    """`aten._to_copy`: only the dtype is a value's business."""
    if layout not in (None, Verbatim("torch.strided")):
        raise NotLowered(f"layout {layout}")
    return x if dtype is None else convert(x, dtype)


def copy_into(x: Node, source: Node, non_blocking: bool = False) -> Node:
    """`aten.copy`: the source in the shape and dtype of x."""
    return as_node(source, x.dtype, x.shape)


TABLE: Mapping[str, Callable[..., Node]] = {
    "aten.where.self": where,
    "aten.where.ScalarOther": where,
    "aten.where.ScalarSelf": where,
    "aten.where.Scalar": where,
    "aten.masked_fill.Scalar": masked_fill,
    "aten.masked_fill.Tensor": masked_fill,
    "aten.clamp.default": clamp,
    "aten.clamp.Tensor": clamp,
    "aten.clamp_min.default": clamp,
    "aten.clamp_min.Tensor": clamp,
    "aten.clamp_max.default": clamp_max,
    "aten.clamp_max.Tensor": clamp_max,
    **{
        f"aten.{op}.default": identity
        for op in ("clone", "alias", "detach", "lift", "lift_fresh", "lift_fresh_copy", "positive")
    },
    "aten.contiguous.default": identity,
    "aten._to_copy.default": to_copy,
    "aten.copy.default": copy_into,
}
