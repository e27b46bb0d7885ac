"""Interval analysis: what the program itself says about the values of a node.

Inputs are any finite numbers; nothing is ever assumed about the values they happen to have. An
interval bounds every value that is not NaN.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from fusewright.ir import graph as g
from fusewright.ir.dtypes import DType
from fusewright.ir.graph import Node
from fusewright.ir.scalar import OPS

from .rule import Env

INF = math.inf
TINY = 5e-324


@dataclass(frozen=True, slots=True)
class Interval:
    """Values lie in [lo, hi]; with `finite`, finite inputs give finite values, overflow aside."""

    lo: float = -INF
    hi: float = INF
    finite: bool = False

    def union(self, other: "Interval") -> "Interval":
        return Interval(
            min(self.lo, other.lo), max(self.hi, other.hi), self.finite and other.finite
        )

    @property
    def excludes_zero(self) -> bool:
        return self.lo > 0 or self.hi < 0


def interval(x: Node, env: Env) -> Interval:
    """The interval of `x`."""
    return env.fact(range_of, x)


def is_finite(x: Node, env: Env) -> bool:
    """Whether finite inputs give finite values of `x`, overflow of the type aside."""
    return interval(x, env).finite


def range_of(node: Node, below: Sequence[Interval]) -> Interval:
    """The interval of `node` from those of its operands (an analysis for Env.fact)."""
    match node:
        case g.Const():
            value = float(node.value)
            return Interval(value, value, True) if math.isfinite(value) else _special(value)
        case g.Input():
            return _anything(node.dtype)
        case g.Iota():
            return Interval(node.value.lo, node.value.hi, True)
        case g.View():
            return below[0].union(_constant(node.fill)) if node.valid else below[0]
        case g.Concat():
            out = below[0]
            for b in below[1:]:
                out = out.union(b)
            return out
        case g.Gather():
            return below[0]
        case g.Where():
            return below[1].union(below[2])
        case g.ArgReduce():
            return Interval(0, max(node.x.shape[node.axis] - 1, 0), True)
        case _:
            return _arithmetic(node, below)


def _arithmetic(node: Node, below: Sequence[Interval]) -> Interval:
    match node:
        case g.Cast():
            return _cast(node, below[0])
        case g.Unary():
            return _unary(node, below[0])
        case g.Binary() if node.dtype.kind == "bool":
            return Interval(0, 1, True)
        case g.Binary():
            return _checked(_binary(node, *below), node.dtype)
        case g.Reduce():
            return _checked(_reduce(node, below[0]), node.dtype)
        case g.Contract():
            signed = below[0].lo < 0 or below[1].lo < 0
            finite = below[0].finite and below[1].finite
            return _checked(Interval(-INF if signed else 0.0, INF, finite), node.dtype)
        case _:
            return _anything(node.dtype, finite=False)


def _constant(value: float | int | bool) -> Interval:
    value = float(value)
    return Interval(value, value, True) if math.isfinite(value) else _special(value)


def _special(value: float) -> Interval:
    return Interval() if math.isnan(value) else Interval(value, value, False)


def _anything(dtype: DType, finite: bool = True) -> Interval:
    if dtype.kind == "bool":
        return Interval(0, 1, True)
    if dtype.kind == "int":
        low = -(2.0 ** (dtype.bits - 1)) if dtype.signed else 0.0
        return Interval(low, 2.0 ** (dtype.bits - dtype.signed) - 1, True)
    return Interval(finite=finite)


def _checked(x: Interval, dtype: DType) -> Interval:
    """`x`, or no knowledge at all where an integer could wrap."""
    if dtype.kind == "int":
        limits = _anything(dtype)
        return x if limits.lo <= x.lo and x.hi <= limits.hi else limits
    return x


def _cast(node: g.Cast, x: Interval) -> Interval:
    if node.dtype.kind == "bool":
        return Interval(0, 1, True)
    if node.dtype.kind == "int" and node.x.dtype.is_float:
        limits = _anything(node.dtype)
        inside = limits.lo <= x.lo and x.hi <= limits.hi
        return Interval(math.trunc(x.lo), math.trunc(x.hi), True) if inside else limits
    return _checked(x, node.dtype)


def _unary(node: g.Unary, x: Interval) -> Interval:
    op = OPS[node.op]
    if node.dtype.kind == "bool":
        return Interval(0, 1, True)
    if node.op == "abs":
        low = 0.0 if x.lo <= 0 <= x.hi else min(abs(x.lo), abs(x.hi))
        return _checked(Interval(low, max(abs(x.lo), abs(x.hi)), x.finite), node.dtype)
    ends = (op.low, op.high)
    if op.monotone is not None and node.op in _ENDS:
        at = (x.lo, x.hi) if op.monotone == "increasing" else (x.hi, x.lo)
        found = [_end(node.op, v, default) for v, default in zip(at, ends, strict=True)]
        ends = (max(found[0], op.low), min(found[1], op.high))
    finite = x.finite and _total(node.op, x)
    if node.op in ("exp", "exp2") and finite:
        # Positive, underflow aside: the smallest number there is stands for that.
        ends = (max(ends[0], TINY), ends[1])
    return _checked(Interval(*ends, finite), node.dtype)


# Functions whose value at an end of the operand's interval is an end of the result's.
_ENDS: Mapping[str, Callable[[float], float]] = MappingProxyType(
    {
        "neg": lambda v: -v,
        "sign": lambda v: (v > 0) - (v < 0),
        "exp": math.exp,
        "expm1": math.expm1,
        "tanh": math.tanh,
        "erf": math.erf,
        "atan": math.atan,
        "sigmoid": lambda v: 1.0 / (1.0 + math.exp(-v)),
        "floor": math.floor,
        "ceil": math.ceil,
        "round": round,
        "trunc": math.trunc,
    }
)


def _end(op: str, value: float, default: float) -> float:
    if math.isinf(value):
        return -value if op == "neg" else default
    try:
        return float(_ENDS[op](value))
    except OverflowError:
        return INF if op in ("exp", "expm1") else default


_EVERYWHERE = frozenset(
    ("neg", "abs", "sign", "exp", "exp2", "expm1", "sin", "cos", "atan", "sinh", "cosh", "tanh")
    + ("asinh", "erf", "erfc", "sigmoid", "floor", "ceil", "round", "trunc", "bitwise_not")
)


def _total(op: str, x: Interval) -> bool:
    """Whether finite operands in `x` give finite results."""
    if op in _EVERYWHERE:
        return True
    if op in ("log", "log2", "log10", "rsqrt"):
        return x.lo > 0
    if op == "sqrt":
        return x.lo >= 0
    if op == "log1p":
        return x.lo > -1
    return op == "reciprocal" and x.excludes_zero


def _binary(node: g.Binary, a: Interval, b: Interval) -> Interval:
    finite = a.finite and b.finite
    match node.op:
        case "add":
            return Interval(_sum(a.lo, b.lo, -INF), _sum(a.hi, b.hi, INF), finite)
        case "sub":
            return Interval(_sum(a.lo, -b.hi, -INF), _sum(a.hi, -b.lo, INF), finite)
        case "mul":
            if node.a == node.b:
                low = 0.0 if a.lo <= 0 <= a.hi else min(a.lo * a.lo, a.hi * a.hi)
                return Interval(low, max(a.lo * a.lo, a.hi * a.hi), finite)
            ends = [_product(v, w) for v in (a.lo, a.hi) for w in (b.lo, b.hi)]
            return Interval(min(ends), max(ends), finite)
        case "div" if b.excludes_zero:
            ends = [_product(v, 1 / w) for v in (a.lo, a.hi) for w in (b.lo, b.hi)]
            return Interval(min(ends), max(ends), finite)
        case "maximum":
            return Interval(max(a.lo, b.lo), max(a.hi, b.hi), finite)
        case "minimum":
            return Interval(min(a.lo, b.lo), min(a.hi, b.hi), finite)
        case "pow" if a.lo >= 0:
            return Interval(0.0, INF, finite and (a.lo > 0 or b.lo >= 0))
        case _:
            return _anything(node.dtype, finite=False)


def _sum(a: float, b: float, default: float) -> float:
    return default if math.isinf(a) or math.isinf(b) else a + b


def _product(a: float, b: float) -> float:
    return 0.0 if a == 0 or b == 0 else a * b


def _reduce(node: g.Reduce, x: Interval) -> Interval:
    count = node.x.size // max(node.size, 1)
    match node.op:
        case "max" | "min":
            return x if count else Interval()
        case "sum":
            ends = (_product(count, x.lo), _product(count, x.hi))
            return Interval(*ends, x.finite)
        case "prod" if x.lo >= 0:
            return Interval(0.0, 1.0 if x.hi <= 1 else INF, x.finite)
        case _:
            return _anything(node.dtype, finite=x.finite)
