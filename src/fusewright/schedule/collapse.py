"""Loop variables in their best order and as few as possible.

Two neighbouring variables become one when every index expression of the nest uses them only as the
row-major number of the pair: a contiguous tensor of any rank ends up with one flat variable.
"""

from collections.abc import Callable, Iterable

from fusewright.ir import body as b
from fusewright.ir import index as ix
from fusewright.ir.index import Index, Var


def index_expressions(bodies: Iterable[b.Expr]) -> tuple[Index, ...]:
    """Every index expression in the bodies: load offsets, coordinates, conditions."""
    out: dict[Index, None] = {}
    for e in b.walk(*bodies):
        match e:
            case b.Load():
                out[e.offset] = None
            case b.Coord():
                out[e.index] = None
            case b.Guarded():
                out.update((c.x, None) for c in e.conds)
    return tuple(out)


def by_stride(variables: tuple[Var, ...], weighted: Iterable[tuple[int, Index]]) -> tuple[Var, ...]:
    """The variables ordered outermost first, by the strides of the heaviest offsets.

    `weighted` pairs are (bytes, offset expression). Each offset votes with its bytes for placing
    the variable of larger stride outside; ties keep the given order.
    """
    votes = sorted(weighted, key=lambda t: -t[0])

    def stride(v: Var) -> tuple[int, ...]:
        known = (ix.coefficient(offset, v) for _, offset in votes)
        return tuple(-abs(c) for c in known if c)[:1] or (0,)

    return tuple(sorted(variables, key=stride))


def merge(
    variables: tuple[Var, ...], expressions: tuple[Index, ...], fresh: Callable[[int], str]
) -> tuple[tuple[Var, ...], dict[Index, Index]]:
    """Neighbours merged where possible: the new variables and the old ones in terms of them."""
    current: list[Var] = list(variables)
    mapping: dict[Index, Index] = {v: v for v in variables}
    exprs, k = list(expressions), 0
    while k + 1 < len(current):
        outer, inner = current[k], current[k + 1]
        both = Var(fresh(k), outer.extent * inner.extent)
        step: dict[Index, Index] = {
            outer: ix.div(both, inner.extent),
            inner: ix.mod(both, inner.extent),
        }
        merged = [ix.substitute(e, step) for e in exprs]
        if all(ix.coefficient(e, both) is not None for e in merged):
            exprs = merged
            current[k : k + 2] = [both]
            mapping = {v: ix.substitute(e, step) for v, e in mapping.items()}
            k = max(k - 1, 0)
        else:
            k += 1
    return tuple(current), mapping
