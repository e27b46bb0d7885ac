"""Lowerings of cumulative ops: sums, products, extremes with positions, log-sum-exps.

16-bit floats are accumulated in float32 and rounded once; integers are summed in int64.
"""

from functools import partial

from fusewright.ir import graph as g
from fusewright.ir.dtypes import BOOL, INT64, DType, compute_type, sum_type
from fusewright.ir.graph import Node

from .operands import NotLowered, axis_of, convert


def _scan(op: str, x: Node, dim: int) -> Node:
    return g.scan(op, x, axis_of(len(x.shape), dim)) if x.shape else x


def cumulative(op: str, x: Node, dim: int, *, dtype: DType | None = None) -> Node:
    """cumsum, cumprod and logcumsumexp; integers and bools give int64."""
    out = dtype or (x.dtype if x.dtype.is_float else sum_type(x.dtype))
    if out == BOOL or (op == "logsumexp" and not out.is_float):
        raise NotLowered(f"cumulative {op} as {out}")
    return convert(_scan(op, convert(x, compute_type(out)), dim), out)


def cumulative_extreme(op: str, x: Node, dim: int) -> tuple[Node | None, ...]:
    """(values, positions) of cummax and cummin."""
    if not x.shape:
        return x, g.const(0, INT64)
    return _scan(op, x, dim), _scan(f"arg{op}", x, dim)


TABLE = {
    "aten.cumsum.default": partial(cumulative, "sum"),
    "aten.cumprod.default": partial(cumulative, "prod"),
    "aten.logcumsumexp.default": partial(cumulative, "logsumexp"),
    "aten.cummax.default": partial(cumulative_extreme, "max"),
    "aten.cummin.default": partial(cumulative_extreme, "min"),
}
