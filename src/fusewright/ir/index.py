"""Bounded integer expressions over loop variables: build, simplify, bound, substitute, evaluate.

Shapes are static, so every expression has exact integer bounds and a small canonical form decides
what symbolic algebra systems need seconds for: a linear combination of atoms, where an atom is a
variable or a floor-division, remainder, minimum or maximum that could not be simplified away.
Nothing about tensors, dtypes or C lives here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import gcd
from typing import Any, Literal, Union

from .keyed import Keyed

IndexLike = Union["Index", int]


@dataclass(frozen=True, slots=True, eq=False)
class Index(Keyed):
    """Base class. `lo` and `hi` are inclusive bounds."""

    lo: int = field(init=False, repr=False)
    hi: int = field(init=False, repr=False)

    def __add__(self, other: IndexLike) -> "Index":
        return add(self, as_index(other))

    __radd__ = __add__

    def __sub__(self, other: IndexLike) -> "Index":
        return add(self, mul(as_index(other), -1))

    def __rsub__(self, other: IndexLike) -> "Index":
        return add(as_index(other), mul(self, -1))

    def __mul__(self, factor: int) -> "Index":
        return mul(self, factor)

    __rmul__ = __mul__

    def __floordiv__(self, divisor: int) -> "Index":
        return div(self, divisor)

    def __mod__(self, divisor: int) -> "Index":
        return mod(self, divisor)

    def __str__(self) -> str:
        return text(self)


@dataclass(frozen=True, slots=True, eq=False)
class Var(Index):
    """A loop variable with 0 <= value < extent."""

    name: str
    extent: int

    def __post_init__(self) -> None:
        Keyed.__post_init__(self)
        _set_bounds(self, 0, max(self.extent - 1, 0))


@dataclass(frozen=True, slots=True, eq=False)
class Linear(Index):
    """`constant + sum(coefficient * atom)`, atoms in key order, no zero coefficient."""

    constant: int
    terms: tuple[tuple[int, Index], ...]

    def __post_init__(self) -> None:
        Keyed.__post_init__(self)
        lo = hi = self.constant
        for c, a in self.terms:
            lo += c * (a.lo if c > 0 else a.hi)
            hi += c * (a.hi if c > 0 else a.lo)
        _set_bounds(self, lo, hi)


@dataclass(frozen=True, slots=True, eq=False)
class Div(Index):
    """Floor division of `x` by a positive constant."""

    x: Index
    divisor: int

    def __post_init__(self) -> None:
        Keyed.__post_init__(self)
        _set_bounds(self, self.x.lo // self.divisor, self.x.hi // self.divisor)


@dataclass(frozen=True, slots=True, eq=False)
class Mod(Index):
    """Remainder of `x` by a positive constant, in [0, divisor)."""

    x: Index
    divisor: int

    def __post_init__(self) -> None:
        Keyed.__post_init__(self)
        _set_bounds(self, 0, self.divisor - 1)


@dataclass(frozen=True, slots=True, eq=False)
class Extremum(Index):
    """The smaller (`kind == "min"`) or larger of two expressions."""

    kind: Literal["min", "max"]
    a: Index
    b: Index

    def __post_init__(self) -> None:
        Keyed.__post_init__(self)
        pick = min if self.kind == "min" else max
        _set_bounds(self, pick(self.a.lo, self.b.lo), pick(self.a.hi, self.b.hi))


def _set_bounds(x: Index, lo: int, hi: int) -> None:
    object.__setattr__(x, "lo", lo)
    object.__setattr__(x, "hi", hi)


# ---------------------------------------------------------------------------------- construction


def const(value: int) -> Index:
    """The constant `value`."""
    return Linear(value, ())


def as_index(x: IndexLike) -> Index:
    return const(x) if isinstance(x, int) else x


def var(name: str, extent: int) -> Index:
    """A loop variable; one of extent 1 (or 0) is the constant 0."""
    return Var(name, extent) if extent > 1 else const(0)


def axis(position: int, extent: int) -> Index:
    """The canonical variable `i<position>` of a tensor's axis."""
    return var(f"i{position}", extent)


def axes(shape: Iterable[int]) -> tuple[Index, ...]:
    """The canonical variables of a shape."""
    return tuple(axis(k, n) for k, n in enumerate(shape))


def constant_value(x: Index) -> int | None:
    """The value of a constant expression, else None."""
    return x.lo if x.lo == x.hi else None


def parts(x: Index) -> tuple[int, tuple[tuple[int, Index], ...]]:
    """`x` as constant and (coefficient, atom) terms."""
    return (x.constant, x.terms) if isinstance(x, Linear) else (0, ((1, x),))


def add(*xs: Index) -> Index:
    """The sum, in canonical form."""
    constant, terms = 0, {}
    for x in xs:
        c0, ts = parts(x)
        constant += c0
        for c, a in ts:
            terms[a] = terms.get(a, 0) + c
    return _linear(constant, terms)


def mul(x: Index, factor: int) -> Index:
    """`x * factor`."""
    if factor == 1:
        return x
    constant, terms = parts(x)
    return _linear(constant * factor, {a: c * factor for c, a in terms})


def _linear(constant: int, terms: dict[Index, int]) -> Index:
    terms = _recombine({a: c for a, c in terms.items() if c})
    live = []
    for a, c in terms.items():
        if a.lo == a.hi:
            constant += c * a.lo
        elif isinstance(a, Linear):  # recombination may produce a sum: flatten it
            return add(const(constant), *(mul(b, k) for b, k in terms.items()))
        else:
            live.append((c, a))
    if not constant and len(live) == 1 and live[0][0] == 1:
        return live[0][1]
    return Linear(constant, tuple(sorted(live, key=lambda t: t[1].key)))


def _recombine(terms: dict[Index, int]) -> dict[Index, int]:
    """`d*(x // d) + x % d -> x` and `a*(x // a % b) + x % a -> x % (a*b)`, to a fixpoint."""
    changed = True
    while changed:
        changed = False
        for low in [a for a in terms if isinstance(a, Mod)]:
            c, d = terms.get(low, 0), low.divisor
            if not c:
                continue
            found = _quotient_in(terms, low, c * d)
            if found is None:
                continue
            high, whole = found
            del terms[low], terms[high]
            c0, ts = parts(mul(whole, c))
            if c0:
                ts = (*ts, (c0, _ONE))
            for k, a in ts:
                terms[a] = terms.get(a, 0) + k
                if not terms[a]:
                    del terms[a]
            changed = True
            break
    return terms


def _quotient_in(terms: dict[Index, int], low: Mod, coefficient: int) -> tuple[Index, Index] | None:
    """A term that completes `low`, with that coefficient, and what the two make together."""
    quotient = div(low.x, low.divisor)
    if terms.get(quotient) == coefficient:
        return quotient, low.x
    for a, c in terms.items():
        if c == coefficient and isinstance(a, Mod) and a.x == quotient:
            return a, mod(low.x, low.divisor * a.divisor)
    return None


def _split(x: Index, d: int) -> tuple[Index, Index]:
    """`x = d*q + r` with every term of `r` not divisible by d and its constant in [0, d)."""
    constant, terms = parts(x)
    quotient = {a: c // d for c, a in terms if c % d == 0}
    rest = {a: c for c, a in terms if c % d}
    return _linear(constant // d, quotient), _linear(constant % d, rest)


def _drop_small(r: Index, d: int) -> tuple[int, Index, Index] | None:
    """`r = g*big + small` with g | d, 1 < g < d... and 0 <= small < g; the largest such g."""
    constant, terms = parts(r)
    for g in sorted({gcd(abs(c), d) for c, _ in terms}, reverse=True):
        if g <= 1:
            return None
        big = {a: c // g for c, a in terms if c % g == 0}
        small = _linear(constant % g, {a: c for c, a in terms if c % g})
        if 0 <= small.lo and small.hi < g:
            return g, _linear(constant // g, big), small
    return None


def div(x: Index, d: int) -> Index:
    """`floor(x / d)` for a positive integer d."""
    if d == 1:
        return x
    if x.lo // d == x.hi // d:
        return const(x.lo // d)
    q, r = _split(x, d)
    if 0 <= r.lo and r.hi < d:
        return q
    if parts(q)[1] or parts(q)[0]:
        return add(q, div(r, d))
    if (dropped := _drop_small(r, d)) is not None:
        g, big, _ = dropped
        return div(big, d // g)
    if isinstance(r, Div):
        return div(r.x, r.divisor * d)
    if isinstance(r, Mod) and r.divisor % d == 0:
        return mod(div(r.x, d), r.divisor // d)
    return Div(r, d)


def mod(x: Index, d: int) -> Index:
    """`x mod d` in [0, d) for a positive integer d."""
    if d == 1:
        return const(0)
    _, r = _split(x, d)
    if r.lo // d == r.hi // d:
        return r - d * (r.lo // d)
    if (dropped := _drop_small(r, d)) is not None:
        g, big, small = dropped
        return mul(mod(big, d // g), g) + small
    if isinstance(r, Mod) and r.divisor % d == 0:
        return mod(r.x, d)
    return Mod(r, d)


def minimum(a: Index, b: Index) -> Index:
    """The smaller of two expressions."""
    if a.hi <= b.lo or a == b:
        return a
    return b if b.hi <= a.lo else Extremum("min", *sorted((a, b), key=lambda v: v.key))


def maximum(a: Index, b: Index) -> Index:
    """The larger of two expressions."""
    if a.lo >= b.hi or a == b:
        return a
    return b if b.lo >= a.hi else Extremum("max", *sorted((a, b), key=lambda v: v.key))


_ONE = const(1)

# ------------------------------------------------------------------------------------ conditions


@dataclass(frozen=True, slots=True, eq=False)
class Cond(Keyed):
    """`x >= 0` (kind "ge") or `x == 0` (kind "eq"). A conjunction is a tuple of these."""

    kind: Literal["ge", "eq"]
    x: Index

    @property
    def truth(self) -> bool | None:
        """True or False where the bounds decide, else None."""
        if self.kind == "ge":
            return True if self.x.lo >= 0 else False if self.x.hi < 0 else None
        if self.x.lo == self.x.hi == 0:
            return True
        return False if self.x.lo > 0 or self.x.hi < 0 else None

    def __str__(self) -> str:
        return f"{self.x} {'>=' if self.kind == 'ge' else '=='} 0"


Conds = tuple[Cond, ...]
FALSE: Conds = (Cond("ge", const(-1)),)


def at_least(x: IndexLike, bound: IndexLike) -> Cond:
    """`x >= bound`, coefficients divided by their common divisor."""
    constant, terms = parts(as_index(x) - as_index(bound))
    g = gcd(*(abs(c) for c, _ in terms)) if terms else 1
    return Cond("ge", _linear(constant // g, {a: c // g for c, a in terms}))


def less(x: IndexLike, bound: IndexLike) -> Cond:
    """`x < bound`."""
    return at_least(as_index(bound) - as_index(x), 1)


def equals(x: IndexLike, y: IndexLike) -> Cond:
    """`x == y`."""
    return Cond("eq", as_index(x) - as_index(y))


def inside(x: Index, extent: int) -> Conds:
    """`0 <= x < extent`, without what the bounds already prove."""
    return conjunction((at_least(x, 0), less(x, extent)))


def conjunction(conds: Iterable[Cond]) -> Conds:
    """The conjunction without duplicates and tautologies, in key order; FALSE if one is false."""
    live: dict[Cond, None] = {}
    for c in conds:
        if c.truth is False:
            return FALSE
        if c.truth is None:
            live[c] = None
    return tuple(sorted(live, key=lambda c: c.key))


# ---------------------------------------------------------------------------- walks and evaluation


def substitute(x: Index, mapping: Mapping[Index, Index]) -> Index:
    """`x` with every variable that `mapping` names replaced, simplified again."""
    if not mapping:
        return x
    return _substitute(x, mapping, {})


def _substitute(x: Index, mapping: Mapping[Index, Index], memo: dict[Index, Index]) -> Index:
    if x in memo:
        return memo[x]
    match x:
        case Var():
            out = mapping.get(x, x)
        case Linear():
            out = add(
                const(x.constant), *(mul(_substitute(a, mapping, memo), c) for c, a in x.terms)
            )
        case Div():
            out = div(_substitute(x.x, mapping, memo), x.divisor)
        case Mod():
            out = mod(_substitute(x.x, mapping, memo), x.divisor)
        case Extremum():
            pick = minimum if x.kind == "min" else maximum
            out = pick(_substitute(x.a, mapping, memo), _substitute(x.b, mapping, memo))
        case _:
            raise TypeError(f"not an index expression: {x!r}")
    memo[x] = out
    return out


def substitute_conds(conds: Conds, mapping: Mapping[Index, Index]) -> Conds:
    """The conjunction after substitution."""
    return conjunction(Cond(c.kind, substitute(c.x, mapping)) for c in conds)


def children(x: Index) -> tuple[Index, ...]:
    match x:
        case Linear():
            return tuple(a for _, a in x.terms)
        case Div() | Mod():
            return (x.x,)
        case Extremum():
            return (x.a, x.b)
        case _:
            return ()


def walk(*xs: Index) -> Iterable[Index]:
    """Every distinct subexpression, parents first."""
    seen: set[Index] = set()
    stack = list(reversed(xs))
    while stack:
        x = stack.pop()
        if x not in seen:
            seen.add(x)
            yield x
            stack.extend(reversed(children(x)))


def variables(*xs: Index) -> tuple[Var, ...]:
    """The variables of the expressions, in order of name."""
    return tuple(sorted((v for v in walk(*xs) if isinstance(v, Var)), key=lambda v: v.name))


def coefficient(x: Index, v: Index) -> int | None:
    """The factor of `v` where `x` is linear in it, 0 when absent, None inside an atom."""
    found = 0
    for c, a in parts(x)[1]:
        if a == v:
            found = c
        elif v in walk(a):
            return None
    return found


def evaluate(x: Index, env: Mapping[Index, Any]) -> Any:
    """The value of `x`; `env` gives each variable an int or an integer array."""
    match x:
        case Var():
            return env[x]
        case Linear():
            return sum((c * evaluate(a, env) for c, a in x.terms), x.constant)
        case Div():
            return evaluate(x.x, env) // x.divisor
        case Mod():
            return evaluate(x.x, env) % x.divisor
        case Extremum():
            a, b = evaluate(x.a, env), evaluate(x.b, env)
            below = a < b
            if x.kind == "max":
                a, b = b, a
            return (a if below else b) if isinstance(below, bool) else b + (a - b) * below
        case _:
            raise TypeError(f"not an index expression: {x!r}")


# ------------------------------------------------------------------------------------------ text


def text(x: Index) -> str:
    """`x` in mathematical notation, for people."""
    match x:
        case Var():
            return x.name
        case Linear():
            return _linear_text(x)
        case Div():
            return f"{_atom_text(x.x)} // {x.divisor}"
        case Mod():
            return f"{_atom_text(x.x)} % {x.divisor}"
        case Extremum():
            return f"{x.kind}({text(x.a)}, {text(x.b)})"
        case _:
            raise TypeError(f"not an index expression: {x!r}")


def _atom_text(x: Index) -> str:
    return text(x) if isinstance(x, Var | Extremum) else f"({text(x)})"


def _linear_text(x: Linear) -> str:
    terms = sorted(x.terms, key=lambda t: (-abs(t[0]), text(t[1])))
    out = ""
    for c, a in terms:
        sign = (" - " if c < 0 else " + ") if out else ("-" if c < 0 else "")
        out += sign + (_atom_text(a) if abs(c) == 1 else f"{abs(c)}*{_atom_text(a)}")
    if x.constant or not out:
        out += f" {'-' if x.constant < 0 else '+'} {abs(x.constant)}" if out else str(x.constant)
    return out
