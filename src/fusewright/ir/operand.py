"""Operands of a contraction that are computed on the way: what schedule and emission agree on.

The product splits its operands into 16-bit terms anyway; a pointwise producer can run in front of
that. One load of it, the base, stands for where the operand lies in memory.
"""

from collections.abc import Iterable

from . import index as ix
from .body import Expr, Guarded, Load, loads, walk
from .index import Index, Var


def base_load(e: Expr, row: Index, k: Index) -> Load:
    """The load of an operand that moves with most of its axes; of several the first."""
    axes = [v for v in (row, k) if isinstance(v, Var)]

    def moving(x: Load) -> int:
        return len(set(axes).intersection(ix.variables(x.offset)))

    found = loads(e)
    return max(found, key=moving)


def streams(e: Expr, row: Index, k: Index) -> bool:
    """Whether an operand can be computed from a stream of its base alone: float32, wherever the
    operand has an element, beside values that are per row or per k."""
    base = base_load(e, row, k)
    others = [x for x in loads(e) if x != base]
    guarded = any(base in loads(x) for x in walk(e) if isinstance(x, Guarded))
    both = {v for v in (row, k) if isinstance(v, Var)}
    alone = all(len(both.intersection(ix.variables(x.offset))) < 2 for x in others)
    return base.dtype.name == "float32" and alone and not guarded


def strides_of(x: Load, axes: Iterable[Index]) -> tuple[int, ...] | None:
    """Element strides along `axes`, or None if the offset is not affine in them."""
    found = [ix.coefficient(x.offset, v) if isinstance(v, Var) else 0 for v in axes]
    return None if None in found else tuple(s or 0 for s in found)

