"""Short rows turned around: neighbouring rows become the lanes of vectors, through small tiles.

A short row is few vectors, and combining the lanes of each of its folds takes longer than the folds
themselves. Here what a kernel folds along its rows is kept by a phase of its own, which
`columns` runs row by row, as it does phases that only store; folds are of whole vectors of
rows. Only the analysis is here.
"""

from dataclasses import replace

from fusewright.ir.body import Apply, Expr, Guarded, Load, Ref, loads, rebuild, walk
from fusewright.ir.index import Var, coefficient, variables
from fusewright.ir.kernel import Keep, Kernel, Phase
from fusewright.ir.phases import mapped
from fusewright.ir.scalar import OPS

# Columns of a short row (of more, the rows' own vectors are as fast), and rows side by side.
SHORT, TURNED_ROWS = 32, 32
# A fold of operations that cost less (by `ScalarOp.cost`) is not worth the way through a tile.
COSTLY = 10


def turned_rows(kernel: Kernel) -> Kernel | None:
    """The kernel with what it folds along its rows kept in tiles before; None where it has no short
    rows of contiguous memory or that would not pay."""
    cols = dict.fromkeys(p.cols for p in kernel.phases if p.cols)
    if len(cols) != 1 or not kernel.rows or kernel.rows[-1].extent < TURNED_ROWS:
        return None
    ((k, *more),) = cols
    folded = [p for p in kernel.phases if p.folds and p.cols]
    if more or k.extent > SHORT or not any(map(is_costly, folded)) or not _is_plain(kernel, k):
        return None
    along = dict.fromkeys(e for p in folded for e in loads(*p.bodies) if _is_along(e, kernel, k))
    if not along or not all(coefficient(e.offset, k) == 1 for e in along):
        return None
    tiles: dict[Expr, Expr] = {e: Ref(e.dtype, f"tile{n}") for n, e in enumerate(along)}
    first = Phase((k,), keeps=tuple(Keep(f"tile{n}", e) for n, e in enumerate(along)))

    def on_tiles(e: Expr) -> Expr:
        return rebuild(e, tiles.get, {})

    rest = (mapped(p, on_tiles) if p in folded else p for p in kernel.phases)
    return replace(kernel, phases=(first, *rest))


def runs_along_rows(phase: Phase) -> bool:
    """Whether a phase folds nothing, and what it keeps or stores are rows of contiguous memory."""
    if not phase.cols or phase.folds or phase.scans:
        return False
    offsets = [e.offset for k in phase.keeps for e in loads(k.body)]
    offsets += [s.offset for s in phase.stores]
    return all(coefficient(x, phase.cols[-1]) == 1 for x in offsets)


def is_costly(phase: Phase) -> bool:
    """Whether what is kept or folded takes longer than combining a vector's lanes."""
    inside = walk(*(x.body for x in (*phase.folds, *phase.keeps)))
    return any(isinstance(e, Apply) and OPS[e.op].cost >= COSTLY for e in inside)


def _is_along(e: Load, kernel: Kernel, k: Var) -> bool:
    found = variables(e.offset)
    return k in found and not set(kernel.rows).isdisjoint(found)


def _is_plain(kernel: Kernel, k: Var) -> bool:
    """Whether all places are known and contiguous, and phases fold or store, and keep nothing."""
    bodies = [*walk(*kernel.bodies)]
    if any(isinstance(e, Guarded) or (isinstance(e, Load) and e.indirect) for e in bodies):
        return False
    phases = [p for p in kernel.phases if p.cols]
    if any(p.scans or p.keeps or (p.stores and p.folds) for p in phases):
        return False
    return all(coefficient(s.offset, k) == 1 for p in phases for s in p.stores)
