"""Stencils: short folds over what slides along a row axis and what only the tap knows (weights).

The nest of a depthwise convolution. Unlike a pooling window (`sliding`), a place's part in a window
depends on where in the window it is, so windows cannot be folded one axis after the other; but
neighbouring windows still read the same places. No C text lives here.
"""

from dataclasses import dataclass, replace

from .body import Expr, Guarded, Load, Ref, loads, rebuild, substitute, walk
from .index import Index, Var, variables
from .kernel import Fold, Phase
from .sliding import Slide, at_place, expressions, is_slide, slide_of, without

# Refs to the values at a place are called so, with a number.
PLACE = "place"


@dataclass(frozen=True, slots=True)
class Stencil:
    """Windows of which a thread takes some that are neighbours along `row`.

    `values` are the bodies' parts at a place `at`, by name: over the other rows and the `taps`.
    `folds` read them as Refs. With a `slide` along the row, `at` is a place of it, the taps are the
    columns but `slide.col`, and the folds do not know the row; without one, nothing is shared, and
    `at` is the row itself.
    """

    row: Var
    slide: Slide | None
    at: Var
    values: tuple[tuple[str, Expr], ...]
    taps: tuple[Var, ...]
    folds: tuple[Fold, ...]

    @property
    def stride(self) -> int:
        return 1 if self.slide is None else self.slide.stride

    def depth(self, windows: int) -> int:
        """Places that so many neighbouring windows reach over."""
        return self.stride * (windows - 1) + (0 if self.slide is None else self.slide.reach) + 1


def stencil(rows: tuple[Var, ...], phases: tuple[Phase, ...]) -> Stencil | None:
    """The stencil of a nest: its first phase only folds, the others take the results.

    Threads lie along the innermost row, so a thread's windows are neighbours along another one.
    """
    first, rest, outer = phases[0], phases[1:], rows[:-1]
    if not outer or not first.folds or first.keeps or first.scans or first.stores:
        return None
    if any(p.cols or p.scans for p in rest):
        return None
    gathers = any(isinstance(e, Load) and e.indirect for e in walk(*first.bodies))
    if gathers or any(f.position is not None for f in first.folds):
        return None
    pairs = ((row, col) for row in reversed(outer) for col in reversed(first.cols))
    found = [s for row, col in pairs if (s := _sliding(row, col, first)) is not None]
    # Of short rows, neighbours along one axis may be near in memory along another, too.
    return min(found, key=_distance, default=_apart(outer[-1], first))


def _distance(s: Stencil) -> int:
    return s.stride + (0 if s.slide is None else s.slide.dilation)


def _sliding(row: Var, col: Var, first: Phase) -> Stencil | None:
    slide = slide_of(row, col, expressions(first.bodies))
    if slide is None:
        return None
    at, named = Var(f"{row.name}_at", slide.places), dict[Expr, str]()
    folds = tuple(replace(f, body=_with_places(f.body, slide, named)) for f in first.folds)
    if not named or _knows(row, *(f.body for f in folds)):
        return None
    mapping: dict[Index, Index] = at_place(slide, at)
    values = tuple((name, substitute(e, mapping)) for e, name in named.items())
    return Stencil(row, slide, at, values, without(first.cols, slide), folds)


def _with_places(body: Expr, slide: Slide, named: dict[Expr, str]) -> Expr:
    """The body with Refs for its largest parts that know the row by the place; adds their names."""

    def change(e: Expr) -> Expr | None:
        if not _knows(slide.row, e):
            return e
        if not loads(e) or not is_slide(slide, expressions((e,))):
            return e if isinstance(e, Guarded) else None  # a load stays behind its guard
        return Ref(e.dtype, named.setdefault(e, f"{PLACE}{len(named)}"))

    return rebuild(body, change, {})


def _knows(row: Var, *bodies: Expr) -> bool:
    return any(row in variables(x) for x in expressions(bodies))


def _apart(row: Var, first: Phase) -> Stencil:
    """Windows that share nothing along the row."""
    named = {f.body: f"{PLACE}{n}" for n, f in enumerate(first.folds)}
    folds = tuple(replace(f, body=Ref(f.body.dtype, named[f.body])) for f in first.folds)
    values = tuple((name, e) for e, name in named.items())
    return Stencil(row, None, row, values, first.cols, folds)
