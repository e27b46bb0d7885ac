"""Phases made from phases: bodies changed, variables substituted, kept values written out.

Schedule and emission both do this. What a phase is, is said in `kernel`; nothing is decided here.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from .body import Expr, Ref, rebuild, substitution
from .index import Index, Var, substitute, substitute_conds
from .kernel import Fold, Keep, Kernel, Phase, Prefix, Store

Change = Callable[[Expr], Expr]
WithBody = TypeVar("WithBody", Fold, Keep, Prefix, Store)
WithPosition = TypeVar("WithPosition", Fold, Prefix)


def mapped(phase: Phase, change: Change) -> Phase:
    """The phase with `change` of every body."""

    def each(xs: tuple[WithBody, ...]) -> tuple[WithBody, ...]:
        return tuple(replace(x, body=change(x.body)) for x in xs)

    return Phase(
        phase.cols, each(phase.folds), each(phase.stores), each(phase.keeps), each(phase.scans)
    )


def substituted(phase: Phase, cols: tuple[Var, ...], mapping: Mapping[Index, Index]) -> Phase:
    """The phase over other `cols`, with `mapping` applied to every index in it."""

    def named(x: WithPosition) -> WithPosition:
        at = None if x.position is None else substitute(x.position, mapping)
        return replace(x, position=at)

    moved = mapped(phase, substitution(mapping))
    return replace(
        moved,
        cols=cols,
        folds=tuple(map(named, moved.folds)),
        scans=tuple(map(named, moved.scans)),
        stores=tuple(_moved(s, mapping) for s in moved.stores),
    )


def _moved(s: Store, mapping: Mapping[Index, Index]) -> Store:
    offset, inside = substitute(s.offset, mapping), substitute_conds(s.inside, mapping)
    return replace(s, offset=offset, inside=inside)


def recomputes(kernel: Kernel) -> bool:
    """Whether the kernel's kept values may be computed again: no buffer is read and written."""
    return not set(kernel.reads) & set(kernel.writes)


def without_keeps(
    phases: Iterable[Phase], drop: Callable[[Phase, Keep], bool] = lambda phase, keep: True
) -> tuple[Phase, ...]:
    """The phases with the bodies of the dropped keeps in the places that refer to them.

    That is the same where the kernel `recomputes`. Phases that did nothing else are left out.
    """
    known: dict[str, Expr] = {}

    def inlined(e: Expr) -> Expr:
        return rebuild(e, lambda x: known.get(x.name) if isinstance(x, Ref) else None)

    out = []
    for phase in phases:
        kept = []
        for k in phase.keeps:
            body = inlined(k.body)
            if drop(phase, k):
                known[k.name] = body
            else:
                kept.append(replace(k, body=body))
        new = replace(mapped(replace(phase, keeps=()), inlined), keeps=tuple(kept))
        if new.bodies:
            out.append(new)
    return tuple(out)
