"""Operands of lowerings: torch's type promotion, explicit broadcasting, arithmetic on nodes.

Every lowering is written with these. Names of ATen operators and FX graphs do not belong here.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from fusewright.ir import graph as g
from fusewright.ir.dtypes import (
    BOOL,
    FLOAT32,
    FLOAT64,
    INT8,
    INT16,
    INT64,
    UINT8,
    DType,
    by_name,
    compute_type,
)
from fusewright.ir.graph import Const, Node, Scalar, Shape


@dataclass(frozen=True, slots=True)
class Number:
    """A number that only a run knows (`x.item()`): a 0-dim node that promotes as a number."""

    node: Node


Operand = Node | Number | float | int | bool
Values = Node | Number | Scalar

_CATEGORY = {"bool": 0, "int": 1, "float": 2}


class NotLowered(Exception):
    """This call of the operator has no lowering: it becomes an Extern call."""


def default_float() -> DType:
    """The type of Python floats among tensors: torch's default dtype."""
    return by_name(str(torch.get_default_dtype()).removeprefix("torch.")) or FLOAT32


def promote(*operands: Operand) -> DType:
    """The common dtype of `operands`, as `torch.result_type` finds it.

    Tensors with axes decide among themselves; 0-dim tensors, then numbers, count only when their
    category (bool < int < float) is higher. Raises NotLowered for dtypes the IR cannot compute in.
    """
    with_axes = [x.dtype for x in operands if isinstance(x, Node) and x.shape]
    without = [x.dtype for x in operands if isinstance(x, Node) and not x.shape]
    numbers = [_number_dtype(x) for x in operands if not isinstance(x, Node)]
    out: DType | None = None
    for group in (with_axes, without, numbers):
        if group:
            low = _promote_all(group)
            out = low if out is None else _outvote(out, low)
    if out is None:
        raise NotLowered("no operands to promote")
    return out


def _number_dtype(x: Operand) -> DType:
    if isinstance(x, Number):
        return default_float() if x.node.dtype.is_float else x.node.dtype
    return BOOL if isinstance(x, bool) else INT64 if isinstance(x, int) else default_float()


def _outvote(high: DType, low: DType) -> DType:
    return low if _category(low) > _category(high) else high


def _category(dtype: DType) -> int:
    if dtype.kind not in _CATEGORY:
        raise NotLowered(f"{dtype} has no arithmetic in the IR")
    return _CATEGORY[dtype.kind]


def _promote_all(dtypes: Sequence[DType]) -> DType:
    out = dtypes[0]
    _category(out)
    for d in dtypes[1:]:
        out = promote_types(out, d)
    return out


def promote_types(a: DType, b: DType) -> DType:
    """`torch.promote_types`."""
    if _category(a) != _category(b):
        return a if _category(a) > _category(b) else b
    if a == b:
        return a
    if a.is_float:
        return FLOAT32 if a.bits == b.bits else max(a, b, key=lambda d: d.bits)
    if UINT8 in (a, b):
        other = b if a == UINT8 else a
        return INT16 if other == INT8 else other
    return max(a, b, key=lambda d: d.bits)


def float_of(dtype: DType) -> DType:
    """The dtype float functions give for `dtype`: itself if float, else the default float type."""
    return dtype if dtype.is_float else default_float()


def broadcast_shapes(*shapes: Shape) -> Shape:
    """NumPy's common shape. Raises NotLowered when there is none."""
    rank = max((len(s) for s in shapes), default=0)
    padded = [(1,) * (rank - len(s)) + s for s in shapes]
    out = []
    for extents in zip(*padded, strict=True):
        wide = {n for n in extents if n != 1}
        if len(wide) > 1:
            raise NotLowered(f"shapes {shapes} do not broadcast")
        out.append(wide.pop() if wide else 1)
    return tuple(out)


def as_node(x: Operand, dtype: DType, shape: Shape = ()) -> Node:
    """`x` in `dtype`, broadcast to `shape`."""
    if isinstance(x, Number):
        x = x.node
    if isinstance(x, Node):
        return g.expand(convert(x, dtype), shape)
    return g.const(x, dtype, shape)


def prepare(dtype: DType, *operands: Operand) -> tuple[Node, ...]:
    """`operands` in `dtype`, broadcast to their common shape."""
    shape = broadcast_shapes(*(x.shape for x in operands if isinstance(x, Node)))
    return tuple(as_node(x, dtype, shape) for x in operands)


def pointwise(formula: Callable[..., Node], *operands: Operand, dtype: DType | None = None) -> Node:
    """`formula` on the operands in the compute type of `dtype`, its result rounded to `dtype`.

    `dtype` defaults to the promoted type. A bool result stays bool.
    """
    dtype = dtype or promote(*operands)
    out = formula(*prepare(compute_type(dtype), *operands))
    return out if out.dtype == BOOL else convert(out, dtype)


def convert(x: Node, dtype: DType) -> Node:
    """`x.to(dtype)` as torch rounds: to bool by `!= 0`."""
    if x.dtype == dtype:
        return x
    if "opaque" in (x.dtype.kind, dtype.kind):
        raise NotLowered(f"no conversion from {x.dtype} to {dtype}")
    if isinstance(x, Const) and _convertible(x, dtype):
        return g.const(x.value, dtype, x.shape)
    if dtype == BOOL:
        return g.binary("ne", x, g.const(0, x.dtype, x.shape))
    return g.cast(x, dtype)


def _convertible(x: Const, dtype: DType) -> bool:
    """Whether the constant needs no rounding rule: an integer small enough for every type."""
    return x.value in (0, 1) or (
        dtype in (FLOAT32, FLOAT64) and isinstance(x.value, int) and abs(x.value) < 2**24
    )


def shape_axes(rank: int, dims: int | Sequence[int] | None) -> tuple[int, ...]:
    """Sorted non-negative axes; None or an empty sequence means all (as reductions read it)."""
    if dims is None or (not isinstance(dims, int) and not dims):
        return tuple(range(rank))
    given = (dims,) if isinstance(dims, int) else tuple(dims)
    return tuple(sorted({d % rank for d in given})) if rank else ()


def axis_of(rank: int, dim: int) -> int:
    """The non-negative axis; 0 for a 0-dim tensor."""
    return dim % rank if rank else 0


# ------------------------------------------------------------------------ arithmetic in one dtype


def _pair(op: str) -> Callable[[Values, Values], Node]:
    def build(a: Values, b: Values) -> Node:
        like = a if isinstance(a, Node) else b
        if not isinstance(like, Node):
            raise TypeError(f"{op}: one operand must be a node")
        return g.binary(op, _alike(a, like), _alike(b, like))

    return build


def _alike(x: Values, like: Node) -> Node:
    return x if isinstance(x, Node) else as_node(x, like.dtype, like.shape)


def _one(op: str) -> Callable[[Node], Node]:
    return lambda x: g.unary(op, x)


add, sub, mul, div = _pair("add"), _pair("sub"), _pair("mul"), _pair("div")
maximum, minimum, power = _pair("maximum"), _pair("minimum"), _pair("pow")
eq, ne, lt, le, gt, ge = (_pair(op) for op in ("eq", "ne", "lt", "le", "gt", "ge"))
both, either = _pair("logical_and"), _pair("logical_or")
neg, absolute, exp, log = _one("neg"), _one("abs"), _one("exp"), _one("log")
log1p, expm1, sqrt, rsqrt = _one("log1p"), _one("expm1"), _one("sqrt"), _one("rsqrt")
tanh, sigmoid, erf, isnan, isinf = (_one(op) for op in ("tanh", "sigmoid", "erf", "isnan", "isinf"))
negate = _one("logical_not")


def choose(cond: Node, a: Values, b: Values) -> Node:
    """`a if cond else b`; at least one of them is a node."""
    like = a if isinstance(a, Node) else b
    if not isinstance(like, Node):
        raise TypeError("choose: one alternative must be a node")
    return g.where(cond, _alike(a, like), _alike(b, like))
