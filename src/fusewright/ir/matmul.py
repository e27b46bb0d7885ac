"""Contractions as (batched) matrix products: the roles of their variables. No library, no cost."""

from dataclasses import dataclass

from . import index as ix
from .graph import Contract
from .index import Index, Var


@dataclass(frozen=True, slots=True)
class Roles:
    """A contraction's variables by role: in both operands, in a only, in b only, summed."""

    batch: tuple[Index, ...]
    m: tuple[Index, ...]
    n: tuple[Index, ...]
    k: tuple[Index, ...]


def roles(c: Contract) -> Roles | None:
    """Roles of the variables if every index is a plain variable or 0 and nothing is guarded."""
    if c.a_valid or c.b_valid:
        return None
    a, b = _plain(c.a_index), _plain(c.b_index)
    if a is None or b is None:
        return None
    out = [v for v in c.axes if isinstance(v, Var)]
    k = [v for v in c.reduced_axes if isinstance(v, Var)]
    if set(k) - (a & b) or set(out) - (a | b):
        return None
    return Roles(
        tuple(v for v in out if v in a and v in b),
        tuple(v for v in out if v in a and v not in b),
        tuple(v for v in out if v in b and v not in a),
        tuple(k),
    )


def _plain(index: tuple[Index, ...]) -> set[Index] | None:
    live = [e for e in index if ix.constant_value(e) != 0]
    distinct = set(live)
    return (
        distinct if all(isinstance(e, Var) for e in live) and len(distinct) == len(live) else None
    )
