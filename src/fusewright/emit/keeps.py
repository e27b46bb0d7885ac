"""Kept values that are computed again instead: where a point is single, or registers are too few.

A kernel means the same with and without a `Keep`, as long as nothing it reads is written by the
kernel itself. No C text lives here.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from fusewright.ir.body import Expr, Ref, rebuild
from fusewright.ir.kernel import Fold, Keep, Kernel, Phase, Store

WithBody = TypeVar("WithBody", Keep, Fold, Store)


def recomputes(kernel: Kernel) -> bool:
    """Whether the kernel's kept values may be computed again: no buffer is read and written."""
    return not set(kernel.reads) & set(kernel.writes)


def without_keeps(kernel: Kernel, drop: Callable[[Phase, Keep], bool]) -> Kernel:
    """The kernel with the bodies of the dropped keeps in the places that refer to them."""
    known: dict[str, Expr] = {}

    def change(e: Expr) -> Expr | None:
        return known.get(e.name) if isinstance(e, Ref) else None

    def inlined(x: WithBody) -> WithBody:
        return replace(x, body=rebuild(x.body, change, {})) if known else x

    phases = []
    for phase in kernel.phases:
        kept = []
        for k in map(inlined, phase.keeps):
            if drop(phase, k):
                known[k.name] = k.body
            else:
                kept.append(k)
        folds, stores = tuple(map(inlined, phase.folds)), tuple(map(inlined, phase.stores))
        if kept or folds or stores:
            phases.append(replace(phase, keeps=tuple(kept), folds=folds, stores=stores))
    return replace(kernel, phases=tuple(phases))
