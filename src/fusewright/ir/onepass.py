"""Folds that one pass over a row can compute: what each of them carries, and when it can.

A contraction sees every element of its result once. A sum that refers to earlier folds of the same
row (of `exp(v - max)`, of `(v - mean)^2`) is still computed in that pass if its parts merge: this
module recognises such folds and says what is left to do when the row is complete. How parts merge
in C is in `emit/cuda/contract.py`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from . import body as b
from . import index as ix
from .dtypes import FLOAT32, INT64
from .index import Var
from .kernel import Fold, Phase

Form = Literal["plain", "best", "exponentials", "squares"]
PLAIN = ("sum", "prod", "max", "min")
BEST = ("argmax", "argmin")
WORDS: dict[Form, int] = {"plain": 1, "best": 2, "exponentials": 2, "squares": 3}


@dataclass(frozen=True, slots=True)
class Partial:
    """A fold as words that merge: `value` is folded at each element, `shift` is a value per row.

    plain: the fold itself. best: an extreme value and its position. exponentials: (top, total) of
    the sum of weight * exp(value + shift), where total is the sum of weight * exp(value - top)
    (Milakov and Gimelshein, arXiv 1805.02867). squares: (count, mean, total) of the sum of
    (value + shift)^2, where total is that of (value - mean)^2 (Chan, Golub and LeVeque, 1979).
    """

    fold: Fold
    form: Form
    value: b.Expr
    shift: b.Expr | None = None
    weight: b.Expr | None = None

    @property
    def words(self) -> int:
        return WORDS[self.form]

    def word(self, number: int) -> b.Ref:
        """The reference to a word of the row's complete partial."""
        dtype = INT64 if self.form == "best" and number == 1 else FLOAT32
        return b.Ref(dtype, f"{self.fold.name}.{number}")

    @property
    def result(self) -> b.Expr:
        """The fold's value over `word`s, and over the results of earlier folds in `shift`."""

        def apply(op: str, *args: b.Expr) -> b.Expr:
            return b.Apply(FLOAT32, op, args)

        if self.shift is None:
            return self.word(1 if self.form == "best" else 0)
        if self.form == "exponentials":
            scale = apply("exp", apply("add", self.word(0), self.shift))
            return apply("mul", self.word(1), scale)
        offset = apply("add", self.word(1), self.shift)
        outside = apply("mul", self.word(0), apply("mul", offset, offset))
        return apply("add", self.word(2), outside)


def partial_of(fold: Fold, cols: tuple[Var, ...]) -> Partial | None:
    """The fold over `cols` as a partial, or None if one pass cannot compute it."""
    body, wide = fold.body, fold.dtype == FLOAT32 and fold.body.dtype == FLOAT32
    if not _refers(body):
        known = wide and fold.kind in (*PLAIN, *BEST)
        return Partial(fold, "best" if fold.position else "plain", body) if known else None
    if fold.kind != "sum" or not wide or not isinstance(body, b.Apply):
        return None
    if body.op == "mul" and body.args[0] == body.args[1]:
        parts = _split(body.args[0], cols)
        return _partial(fold, "squares", parts, None)
    return _exponentials(fold, body, cols)


def _exponentials(fold: Fold, body: b.Apply, cols: tuple[Var, ...]) -> Partial | None:
    if body.op == "exp":
        return _partial(fold, "exponentials", _split(body.args[0], cols), None)
    for x, weight in (body.args, body.args[::-1]) if body.op == "mul" else ():
        if isinstance(x, b.Apply) and x.op == "exp" and not _refers(weight):
            return _partial(fold, "exponentials", _split(x.args[0], cols), weight)
    return None


_Parts = tuple[b.Expr | None, b.Expr | None]


def _partial(
    fold: Fold, form: Form, parts: _Parts | None, weight: b.Expr | None
) -> Partial | None:
    if parts is None or parts[0] is None or parts[1] is None:
        return None
    return Partial(fold, form, parts[0], parts[1], weight)


def _split(e: b.Expr, cols: tuple[Var, ...]) -> _Parts | None:
    """`e` as (value without references, value per row) whose sum it is; None if it is no sum."""
    if is_per_row(e, cols):
        return (None, e) if _refers(e) else (e, None)
    if not _refers(e):
        return e, None
    if not isinstance(e, b.Apply) or e.dtype != FLOAT32:
        return None
    if e.op in ("add", "sub"):
        x, y = (_split(a, cols) for a in e.args)
        return None if x is None or y is None else _summed(e.op, x, y)
    if e.op == "mul":
        for x, factor in (e.args, e.args[::-1]):
            parts = _split(x, cols)
            if parts is not None and not _refers(factor) and is_per_row(factor, cols):
                value, row = (p and b.Apply(FLOAT32, "mul", (p, factor)) for p in parts)
                return value, row
    return None


def _summed(op: str, x: _Parts, y: _Parts) -> _Parts:
    def one(p: b.Expr | None, q: b.Expr | None) -> b.Expr | None:
        if q is None:
            return p
        if p is None:
            return q if op == "add" else b.Apply(FLOAT32, "neg", (q,))
        return b.Apply(FLOAT32, op, (p, q))

    return one(x[0], y[0]), one(x[1], y[1])


def _refers(e: b.Expr) -> bool:
    return any(isinstance(x, b.Ref) for x in b.walk(e))


def is_per_row(e: b.Expr, cols: Iterable[Var]) -> bool:
    """Whether a value is the same at every point of `cols`."""
    moving = set(cols)
    for x in b.walk(e):
        match x:
            case b.Load():
                found = ix.variables(x.offset)
            case b.Coord():
                found = ix.variables(x.index)
            case b.Guarded():
                found = ix.variables(*(c.x for c in x.conds))
            case _:
                found = ()
        if moving.intersection(found):
            return False
    return True


def partials_of(phases: Iterable[Phase]) -> tuple[Partial, ...] | None:
    """The partials of every fold of the phases, in order; None if one pass does not suffice."""
    found = [partial_of(f, p.cols) for p in phases for f in p.folds]
    return None if None in found else tuple(x for x in found if x is not None)


def finished(e: b.Expr, partials: Iterable[Partial]) -> b.Expr:
    """`e` with each reference to a fold replaced by what the fold's words give."""
    results: dict[str, b.Expr] = {}

    def change(x: b.Expr) -> b.Expr | None:
        return results.get(x.name) if isinstance(x, b.Ref) else None

    for p in partials:
        results[p.fold.name] = b.rebuild(p.result, change)
    return b.rebuild(e, change)


