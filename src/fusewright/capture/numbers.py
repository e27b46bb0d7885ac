"""Python numbers that a run computes from tensors (`x.item()`), followed as 0-dim nodes.

They may enter arithmetic, never a shape: shapes are static. Tensors do not belong here.
"""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch

from fusewright.ir import graph as g
from fusewright.ir.dtypes import BOOL, FLOAT64, INT64, DType
from fusewright.ir.graph import Node

from .operands import Number, as_node, convert


def item(x: Node) -> Number:
    """`x.item()` of a tensor with one element."""
    return Number(g.reshape(x, ()))


def _dtype(x: Any) -> DType:
    """Python's type of a number: bool, int (int64 here) or float (binary64)."""
    kind = x.node.dtype.kind if isinstance(x, Number) else type(x).__name__
    return {"bool": BOOL, "int": INT64, "float": FLOAT64}[kind]


def _arithmetic(op: str, floats: bool = False) -> Callable[..., Number]:
    def build(*xs: Any) -> Number:
        kinds = [_dtype(x) for x in xs]
        dtype = FLOAT64 if floats or FLOAT64 in kinds else INT64
        nodes = [as_node(x, dtype) for x in xs]
        return Number(g.unary(op, *nodes) if len(nodes) == 1 else g.binary(op, *nodes))

    return build


def _to(dtype: DType) -> Callable[[Any], Number]:
    return lambda x: Number(convert(as_node(x, _dtype(x)), dtype))


FUNCTIONS: Mapping[Any, Callable[..., Number]] = {
    operator.add: _arithmetic("add"),
    operator.sub: _arithmetic("sub"),
    operator.mul: _arithmetic("mul"),
    operator.truediv: _arithmetic("div", floats=True),
    operator.floordiv: _arithmetic("floor_div"),
    operator.mod: _arithmetic("remainder"),
    operator.pow: _arithmetic("pow"),
    operator.neg: _arithmetic("neg"),
    abs: _arithmetic("abs"),
    torch.sym_float: _to(FLOAT64),
    torch.sym_int: _to(INT64),
    torch.sym_max: _arithmetic("maximum"),
    torch.sym_min: _arithmetic("minimum"),
}
