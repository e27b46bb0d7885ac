"""Sums of products of indexed tensors: the common form of reductions and contractions.

`out[i] = scale · Σ_loops Π_f f[index_f(i, loops)]`, a factor counting as zero where its conditions
fail. Views dissolve in a nest's index maps and a reduction of a contraction is one more loop, so
every linear map over the output axes of every contraction looks the same here. This module reads
graphs into nests and simplifies them without choosing; `plan` chooses and writes graphs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir.convolution import undivided
from fusewright.ir.dtypes import DType
from fusewright.ir.graph import Node, Scalar, Shape
from fusewright.ir.index import Conds, Index, Var

from .build import mapping

Family = Literal["matmul", "convolution"]


@dataclass(frozen=True, slots=True)
class Factor:
    """`x[index] if valid else 0`."""

    x: Node
    index: tuple[Index, ...]
    valid: Conds = ()

    @property
    def variables(self) -> tuple[Var, ...]:
        return ix.variables(*self.index, *(c.x for c in self.valid))

    def substitute(self, at: Mapping[Index, Index]) -> "Factor":
        index = tuple(ix.substitute(e, at) for e in self.index)
        return Factor(self.x, index, ix.substitute_conds(self.valid, at))

    def where(self, conds: Iterable[ix.Cond]) -> "Factor":
        return replace(self, valid=ix.conjunction((*self.valid, *conds)))


@dataclass(frozen=True, slots=True)
class Nest:
    """A sum of products; output axes are the variables i0, i1, ... of `shape`."""

    shape: Shape
    loops: tuple[Var, ...]
    factors: tuple[Factor, ...]
    dtype: DType
    family: Family = "matmul"
    scale: Scalar = 1

    @property
    def axes(self) -> tuple[Index, ...]:
        return ix.axes(self.shape)

    def substitute(self, at: Mapping[Index, Index]) -> "Nest":
        return replace(self, factors=tuple(f.substitute(at) for f in self.factors))

    def used_elsewhere(self, v: Index, factor: Factor) -> bool:
        return any(v in f.variables for f in self.factors if f is not factor)


def fresh_loops(extents: Iterable[int], taken: int) -> tuple[Index, ...]:
    """New loop variables (constants for extent 1) that differ from the first `taken` ones."""
    return tuple(ix.var(f"r{taken + k}", n) for k, n in enumerate(extents))


def as_loops(xs: Iterable[Index]) -> tuple[Var, ...]:
    return tuple(x for x in xs if isinstance(x, Var))


# ------------------------------------------------------------------------------------------ reading


class Reader:
    """Turns nodes into factors, keeping loop names apart.

    `contractions` says how deep contractions below are opened; a product is opened by `products`.
    """

    def __init__(self, contractions: int = 1, products: bool = False) -> None:
        self.contractions = contractions
        self.products = products
        self.loops: list[Index] = []
        self.family: Family = "matmul"
        self.opened = 0

    def fresh(self, extents: Iterable[int]) -> tuple[Index, ...]:
        new = fresh_loops(extents, len(self.loops))
        self.loops += new
        return new

    def factors(self, f: Factor, depth: int | None = None) -> list[Factor]:
        """`f` with the views, and to some depth the contractions, in its tensor dissolved."""
        depth = self.contractions if depth is None else depth
        x = f.x
        if isinstance(x, g.View) and (not x.valid or x.fill == 0):
            at = mapping(x.shape, f.index)
            inside = Factor(x.x, x.index, x.valid).substitute(at).where(f.valid)
            return self.factors(inside, depth)
        if isinstance(x, g.Contract) and depth > 0 and opens(x):
            return self._contraction(x, f, depth)
        if isinstance(x, g.Cast) and isinstance(x.x, g.Contract) and widens(x):
            below = self.factors(replace(f, x=x.x), depth)
            return [replace(h, x=g.cast(h.x, x.dtype)) for h in below]
        if self.products and isinstance(x, g.Binary) and x.op == "mul":
            sides = [Factor(o, f.index) for o in (x.a, x.b)]
            return [h for s in _guarding(sides, f.valid) for h in self.factors(s, depth)]
        return [f]

    def _contraction(self, c: g.Contract, f: Factor, depth: int) -> list[Factor]:
        self.opened += 1
        if c.family == "convolution":
            self.family = "convolution"
        at = mapping(c.shape, f.index)
        loops = self.fresh(c.reduced)
        at |= {r: v for r, v in zip(c.reduced_axes, loops, strict=True) if isinstance(r, Var)}
        sides = [Factor(c.a, c.a_index, c.a_valid), Factor(c.b, c.b_index, c.b_valid)]
        sides = _guarding([s.substitute(at) for s in sides], f.valid)
        return [h for s in sides for h in self.factors(s, depth - 1)]


def _guarding(sides: Sequence[Factor], conds: Conds) -> list[Factor]:
    """`sides` with each condition at the one that shares most variables with it: zero once is zero.

    Nothing else keeps the other sides' indices in bounds where a condition fails, so they keep the
    conditions that their indices need.
    """
    out = list(sides)
    for c in conds:
        names = ix.variables(c.x)
        shared = [sum(v in s.variables for v in names) for s in sides]
        k = max(range(len(sides)), key=lambda n: (shared[n], -n))
        out = [s.where((c,)) if j == k or not _is_inside(s) else s for j, s in enumerate(out)]
    return out


def _is_inside(f: Factor) -> bool:
    """Whether the factor's indices stay within its tensor whatever the conditions say."""
    return all(0 <= e.lo <= e.hi < n for e, n in zip(f.index, f.x.shape, strict=True))


def widens(x: g.Cast) -> bool:
    """Whether the cast loses nothing of a float."""
    return x.dtype.is_float and x.x.dtype.is_float and x.x.dtype.bits < x.dtype.bits


def opens(c: g.Contract) -> bool:
    """Whether `c` is a plain sum of products: not empty, and not widened from a smaller type."""
    return bool(c.size) and all(c.reduced)


def from_contract(c: g.Contract, deeper: int = 0) -> Nest:
    """`c` as a nest; `deeper` levels of contractions among its operands are opened too."""
    reader = Reader(contractions=deeper + 1)
    factors = reader.factors(Factor(c, c.axes))
    return Nest(c.shape, as_loops(reader.loops), tuple(factors), c.dtype, reader.family)


def from_sum(x: Node, axes: Sequence[int], reader: Reader) -> Nest:
    """The sum of `x` over `axes` as a nest."""
    kept = [k for k in range(len(x.shape)) if k not in axes]
    shape = tuple(x.shape[k] for k in kept)
    loops = reader.fresh(x.shape[k] for k in axes)
    at = dict(zip(axes, loops, strict=True)) | dict(zip(kept, ix.axes(shape), strict=True))
    factors = reader.factors(Factor(x, tuple(at[k] for k in range(len(x.shape)))))
    return Nest(shape, as_loops(reader.loops), tuple(factors), x.dtype, reader.family)


def from_view(v: g.View, reader: Reader) -> Nest | None:
    """A view as a nest without loops of its own; None when its border is not zero."""
    if v.valid and v.fill != 0:
        return None
    factors = reader.factors(Factor(v, v.axes))
    return Nest(v.shape, as_loops(reader.loops), tuple(factors), v.dtype, reader.family)


# ------------------------------------------------------------------------------------- simplifying


def simplified(nest: Nest) -> Nest:
    """The nest without constant factors, loops nothing depends on, and solvable equalities."""
    while (after := _step(nest)) is not None:
        nest = after
    return nest


def _step(nest: Nest) -> Nest | None:
    for f in nest.factors:
        if isinstance(f.x, g.Const) and not f.valid and _is_number(f.x.value):
            rest = tuple(h for h in nest.factors if h is not f)
            return replace(nest, factors=rest, scale=nest.scale * f.x.value)
    used = {v for f in nest.factors for v in f.variables}
    for v in nest.loops:
        if v not in used:
            loops = tuple(w for w in nest.loops if w != v)
            return replace(nest, loops=loops, scale=nest.scale * v.extent)
    for f in nest.factors:
        for c in f.valid:
            if c.kind == "eq" and (solved := _solve(nest, f, c)) is not None:
                return solved
    return _divided(nest)


def _divided(nest: Nest) -> Nest | None:
    """The nest with a loop that is read through `v // d` or `v % d` split into two."""
    for v in nest.loops:
        for e in ix.walk(*(e for f in nest.factors for e in (*f.index, *(c.x for c in f.valid)))):
            if isinstance(e, ix.Div | ix.Mod) and e.x == v and not v.extent % e.divisor:
                high = ix.var(f"{v.name}h", v.extent // e.divisor)
                low = ix.var(f"{v.name}l", e.divisor)
                loops = tuple(w for w in nest.loops if w != v) + as_loops((high, low))
                return replace(nest, loops=loops).substitute({v: high * e.divisor + low})
    return None


def _is_number(value: Scalar) -> bool:
    return value == value and value not in (float("inf"), float("-inf"))


def _solve(nest: Nest, factor: Factor, cond: ix.Cond) -> Nest | None:
    """The nest with a loop variable eliminated by the equality `cond`, if it occurs linearly."""
    if isinstance(cond.x, ix.Mod):
        return _stepped(nest, factor, cond, cond.x)
    for v in nest.loops:
        c = ix.coefficient(cond.x, v)
        if c not in (1, -1):
            continue
        value = (cond.x - v * c) * -c
        guarded = replace(
            factor,
            valid=ix.conjunction(
                (*(d for d in factor.valid if d != cond), *ix.inside(value, v.extent))
            ),
        )
        factors = tuple(guarded if h is factor else h for h in nest.factors)
        loops = tuple(w for w in nest.loops if w != v)
        return replace(nest, loops=loops, factors=factors).substitute({v: value})
    return None


def _stepped(nest: Nest, factor: Factor, cond: ix.Cond, rest: ix.Mod) -> Nest | None:
    """The nest with a loop that runs over the solutions of `rest == 0`, which it alone decides."""
    names = ix.variables(rest)
    if len(names) != 1 or names[0] not in nest.loops:
        return None
    v = names[0]
    found = [n for n in range(v.extent) if ix.evaluate(rest, {v: n}) == 0]
    steps = {b - a for a, b in pairwise(found)}
    if not found or len(steps) > 1:
        return None
    w = ix.var(f"{v.name}s", len(found))
    guarded = replace(factor, valid=ix.conjunction(c for c in factor.valid if c != cond))
    factors = tuple(guarded if h is factor else h for h in nest.factors)
    loops = tuple(u for u in nest.loops if u != v) + as_loops((w,))
    step = steps.pop() if steps else 1
    return replace(nest, loops=loops, factors=factors).substitute({v: w * step + found[0]})


# ------------------------------------------------------------------------------ change of variables


def changes(nest: Nest) -> Iterable[Nest]:
    """Nests equal to `nest` in which one loop follows an axis of a factor instead.

    Where an axis is read at `v + u + ...` over two loops, v is replaced by `t = v + u`; what then
    bounds v becomes a condition on another factor. An axis read at `(v + u + ...) / s`, under the
    condition that the division leaves no rest, is treated alike.
    """
    for f in nest.factors:
        for v in nest.loops:
            if not nest.used_elsewhere(v, f):
                for e in f.index:
                    yield from _changed(nest, f, e, v)


def _guarded(f: Factor) -> Factor:
    """`f` reading nothing outside its tensor, now that `v = t - u` may leave v's range."""
    return f.where(c for e, n in zip(f.index, f.x.shape, strict=True) for c in ix.inside(e, n))


def _changed(nest: Nest, f: Factor, e: Index, v: Var) -> Iterable[Nest]:
    inner, step = undivided(e)
    exact = step == 1 or any(c.kind == "eq" and c.x == ix.mod(inner, step) for c in f.valid)
    sign = ix.coefficient(inner, v)
    if sign not in (1, -1) or not exact:
        return
    constant, terms = ix.parts(inner)
    own = [(c, a) for c, a in terms if a in nest.loops]
    rest = [(c, a) for c, a in terms if a not in nest.loops]
    if (len(own) < 2 and step == 1) or any(c % step for c, _ in rest):
        return
    total = ix.add(ix.const(constant), *(ix.mul(a, c) for c, a in own))
    low, high = -(-total.lo // step), total.hi // step
    if high < low:
        return
    t = ix.var(f"{v.name}'", high - low + 1)
    value = (step * (t + low) - (total - v * sign)) * sign
    conds = ix.inside(value, v.extent)
    loops = tuple(w for w in nest.loops if w != v) + as_loops((t,))
    moved = replace(nest, loops=loops).substitute({v: value})
    moved = replace(moved, factors=tuple(_guarded(h) for h in moved.factors))
    others = [k for k, h in enumerate(nest.factors) if h is not f]
    for k in others if conds else others[:1]:
        factors = list(moved.factors)
        factors[k] = factors[k].where(conds)
        yield simplified(replace(moved, factors=tuple(factors)))
