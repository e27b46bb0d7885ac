"""Guards of a fold as bounds of the loop around it: what padding would add is not visited.

Compilers make vectors of a loop over part of the lanes, and none of a loop whose loads are guarded.
Only the analysis is here; `columns` writes the loops.
"""

from dataclasses import dataclass, replace

from fusewright.ir.body import Expr, Guarded, Lit
from fusewright.ir.index import Conds, Index, Var, coefficient, const, substitute, variables
from fusewright.ir.kernel import Fold, Phase
from fusewright.ir.scalar import identity


@dataclass(frozen=True, slots=True)
class Clip:
    """Where a guard holds: `conds` do, and the row is at least every `first`, at most every `last`.

    None of them depends on the row.
    """

    conds: Conds = ()
    first: tuple[Index, ...] = ()
    last: tuple[Index, ...] = ()


def clipped(phase: Phase, row: Var) -> tuple[Phase, Clip]:
    """The phase without its guards and where they hold; the phase itself where there is no need.

    All folds must have the guard, and their identity where it does not hold.
    """
    guards = dict.fromkeys(_guard(f) for f in phase.folds)
    if len(guards) != 1 or phase.stores or phase.keeps or phase.scans:
        return phase, Clip()
    (conds,) = guards
    clip = _clip(conds, row)
    if clip is None or not (clip.first or clip.last):
        return phase, Clip()
    return replace(phase, folds=tuple(replace(f, body=_inside(f.body)) for f in phase.folds)), clip


def _guard(fold: Fold) -> Conds:
    e = fold.body
    if not isinstance(e, Guarded) or not isinstance(e.otherwise, Lit) or fold.position is not None:
        return ()
    return e.conds if e.otherwise.value == identity(fold.kind, e.dtype) else ()


def _inside(e: Expr) -> Expr:
    return e.x if isinstance(e, Guarded) else e


def _clip(conds: Conds, row: Var) -> Clip | None:
    """The conditions solved for the row; None where one is not linear in it."""
    clip = Clip()
    for c in conds:
        factor = coefficient(c.x, row)
        rest = substitute(c.x, {row: const(0)})
        if factor == 0 and row not in variables(c.x):
            clip = replace(clip, conds=(*clip.conds, c))
        elif not factor or c.kind != "ge":
            return None
        elif factor > 0:  # factor * row + rest >= 0
            clip = replace(clip, first=(*clip.first, (rest * -1 + (factor - 1)) // factor))
        else:
            clip = replace(clip, last=(*clip.last, rest // -factor))
    return clip
