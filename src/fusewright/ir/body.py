"""Scalar expressions inside a kernel: what one point of a loop nest computes.

A body is an immutable, content-addressed DAG over loads at index expressions, constants, earlier
reduction results and scalar operations. It is the same language for every anchor, prologue and
epilogue. No loops, no C and no tensors live here.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from . import index as ix
from .dtypes import DType
from .index import Conds, Index, Var
from .keyed import Keyed

Scalar = float | int | bool


@dataclass(frozen=True, slots=True, eq=False)
class Expr(Keyed):
    """A scalar value of type `dtype`."""

    dtype: DType

    @property
    def operands(self) -> tuple["Expr", ...]:
        return ()


@dataclass(frozen=True, slots=True, eq=False)
class Lit(Expr):
    """A constant."""

    value: Scalar


@dataclass(frozen=True, slots=True, eq=False)
class Load(Expr):
    """`buffer[offset + sum(index * stride)]`, offsets in elements.

    `indirect` pairs are (integer expression already bounds-checked, stride): a gather.
    """

    buffer: str
    offset: Index
    indirect: tuple[tuple[Expr, int], ...] = ()

    @property
    def operands(self) -> tuple[Expr, ...]:
        return tuple(e for e, _ in self.indirect)


@dataclass(frozen=True, slots=True, eq=False)
class Coord(Expr):
    """An index expression as a value."""

    index: Index


@dataclass(frozen=True, slots=True, eq=False)
class Apply(Expr):
    """`op(args)` with an op of `ir.scalar`."""

    op: str
    args: tuple[Expr, ...]

    @property
    def operands(self) -> tuple[Expr, ...]:
        return self.args


@dataclass(frozen=True, slots=True, eq=False)
class Convert(Expr):
    """`x` converted to `dtype`."""

    x: Expr

    @property
    def operands(self) -> tuple[Expr, ...]:
        return (self.x,)


@dataclass(frozen=True, slots=True, eq=False)
class Choose(Expr):
    """`a if cond else b`; both may be evaluated."""

    cond: Expr
    a: Expr
    b: Expr

    @property
    def operands(self) -> tuple[Expr, ...]:
        return (self.cond, self.a, self.b)


@dataclass(frozen=True, slots=True, eq=False)
class Guarded(Expr):
    """`x if conds else otherwise`; x (its loads above all) is evaluated only where conds hold."""

    conds: Conds
    x: Expr
    otherwise: Expr

    @property
    def operands(self) -> tuple[Expr, ...]:
        return (self.x, self.otherwise)


@dataclass(frozen=True, slots=True, eq=False)
class Checked(Expr):
    """Integer `x`, proved at run time to be in [0, extent): the kernel reports a failure."""

    x: Expr
    extent: int

    @property
    def operands(self) -> tuple[Expr, ...]:
        return (self.x,)


@dataclass(frozen=True, slots=True, eq=False)
class Dot(Expr):
    """`sum over k of x * y`, where `k` is a variable of x and y alone: a contraction's element.

    Only kernels of anchor "contraction" have one. x and y are loads, or values computed of loads
    where the scheme is "split".
    """

    k: Var
    x: Expr
    y: Expr

    @property
    def operands(self) -> tuple[Expr, ...]:
        return (self.x, self.y)


def product_axes(batch: int, m: int, n: int, k: int) -> tuple[Index, Index, Index, Var]:
    """A contraction's variables by their extents: batch, row, column and what a Dot sums over."""
    return ix.var("b", batch), ix.var("m", m), ix.var("n", n), Var("k", k)


@dataclass(frozen=True, slots=True, eq=False)
class Ref(Expr):
    """The value named `name`: a reduction of an earlier phase, or a value kept on chip."""

    name: str


def rebuild(
    e: Expr, change: Callable[[Expr], Expr | None], memo: dict[Expr, Expr] | None = None
) -> Expr:
    """`e` with every subexpression for which `change` gives a value replaced by it, top down.

    `memo` keeps results for further calls with the same `change`.
    """
    memo = {} if memo is None else memo
    if e in memo:
        return memo[e]
    out = change(e)
    if out is None:
        out = _with_operands(e, tuple(rebuild(o, change, memo) for o in e.operands))
    memo[e] = out
    return out


def _with_operands(e: Expr, xs: tuple[Expr, ...]) -> Expr:
    if xs == e.operands:
        return e
    match e:
        case Load():
            pairs = tuple((x, s) for x, (_, s) in zip(xs, e.indirect, strict=True))
            return Load(e.dtype, e.buffer, e.offset, pairs)
        case Apply():
            return Apply(e.dtype, e.op, xs)
        case Convert():
            return Convert(e.dtype, xs[0])
        case Choose():
            return Choose(e.dtype, *xs)
        case Guarded():
            return Guarded(e.dtype, e.conds, *xs)
        case Checked():
            return Checked(e.dtype, xs[0], e.extent)
        case Dot():
            return Dot(e.dtype, e.k, *xs)
        case _:
            return e


def substitute(e: Expr, mapping: Mapping[Index, Index]) -> Expr:
    """`e` with loop variables replaced in every index expression and condition."""
    return substitution(mapping)(e)


def substitution(mapping: Mapping[Index, Index]) -> Callable[[Expr], Expr]:
    """`substitute` by one mapping for several expressions: what they share is rebuilt once."""

    def change(x: Expr) -> Expr | None:
        return _substitute_node(x, mapping, memo)

    memo: dict[Expr, Expr] = {}
    return lambda e: rebuild(e, change, memo) if mapping else e


def _substitute_node(
    x: Expr, mapping: Mapping[Index, Index], memo: dict[Expr, Expr]
) -> Expr | None:
    match x:
        case Load():
            pairs = tuple(
                (rebuild(e, lambda y: _substitute_node(y, mapping, memo), memo), s)
                for e, s in x.indirect
            )
            return Load(x.dtype, x.buffer, ix.substitute(x.offset, mapping), pairs)
        case Coord():
            return Coord(x.dtype, ix.substitute(x.index, mapping))
        case Guarded():
            conds = ix.substitute_conds(x.conds, mapping)
            inner, other = (
                rebuild(e, lambda y: _substitute_node(y, mapping, memo), memo) for e in x.operands
            )
            return guarded(conds, inner, other)
        case _:
            return None


def guarded(conds: Conds, x: Expr, otherwise: Expr) -> Expr:
    """Guarded, or the branch that `conds` already decides."""
    if not conds:
        return x
    return otherwise if conds == ix.FALSE else Guarded(x.dtype, conds, x, otherwise)


def walk(*roots: Expr) -> Iterator[Expr]:
    """Every distinct subexpression, operands before users."""
    seen: set[Expr] = set()
    stack: list[tuple[Expr, bool]] = [(r, False) for r in reversed(roots)]
    while stack:
        e, ready = stack.pop()
        if e in seen:
            continue
        if ready:
            seen.add(e)
            yield e
        else:
            stack.append((e, True))
            stack.extend((o, False) for o in reversed(e.operands))


def loads(*roots: Expr) -> tuple[Load, ...]:
    """The loads of the expressions, in evaluation order."""
    return tuple(e for e in walk(*roots) if isinstance(e, Load))
