"""Whether two values can share a loop nest: matching a sink's domain to a kernel's variables.

A kernel's loop variables form a mixed-radix counter. A sink joins a kernel when its own domain can
be written over those variables so that every value it takes from the kernel is taken at the very
point where the kernel has it. Nothing about memory or machines is decided here.
"""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from math import prod

from fusewright.ir import index as ix
from fusewright.ir import offsets
from fusewright.ir.index import Index, Var

Mapping_ = Mapping[Index, Index]


def unify(
    pairs: Iterable[tuple[Index, Index]], bound: Mapping_, free: Iterable[Index]
) -> dict[Index, Index] | None:
    """Bindings of the `free` variables that make every pair (sink side, kernel side) equal.

    Extends `bound`; None when a pair cannot be made equal. A variable is bound only to an
    expression with exactly its range.
    """
    bound, free = dict(bound), set(free)
    waiting = list(pairs)
    while waiting:
        rest = []
        for mine, theirs in waiting:
            mine = ix.substitute(mine, bound)
            unknown = [v for v in ix.variables(mine) if v in free and v not in bound]
            if not unknown:
                if mine != theirs:
                    return None
            elif (solved := _solve(mine, unknown, theirs)) is not None:
                bound[unknown[0]] = solved
            else:
                rest.append((mine, theirs))
        if len(rest) == len(waiting):
            return None
        waiting = rest
    return bound


def _solve(mine: Index, unknown: list[Var], theirs: Index) -> Index | None:
    """The value of the one unknown for which `mine == theirs`, if it has exactly its range."""
    v = unknown[0]
    factor = ix.coefficient(mine, v)
    if len(unknown) > 1 or not factor:
        return None
    difference = theirs - (mine - v * factor)
    constant, terms = ix.parts(difference)
    if constant % factor or any(c % factor for c, _ in terms):
        return None
    value = ix.add(ix.const(constant // factor), *(ix.mul(a, c // factor) for c, a in terms))
    return value if (value.lo, value.hi) == (0, v.extent - 1) else None


def is_bijection(coords: Iterable[Index], shape: tuple[int, ...]) -> bool:
    """Whether `coords`, over kernel variables, visit every point of `shape` exactly once."""
    offset = offsets.flatten(coords, offsets.row_major(shape))
    constant, terms = ix.parts(offset)
    if constant or not all(isinstance(a, Var) for _, a in terms):
        return False
    step = 1
    for c, a in sorted(terms, key=lambda t: t[0]):
        if c != step:
            return False
        step *= a.hi + 1
    return step == prod(shape)


def split_radices(coords: Iterable[Index], variables: Iterable[Index]) -> dict[Index, Index]:
    """Variables that occur under // or % rewritten as mixed-radix sums of new variables.

    A reduction kept at `i1 // 4` meets a domain with the axis i1 of extent 32: i1 becomes
    `4*i1_0 + i1_1`, and the coordinate simplifies to the plain variable i1_0.
    """
    wanted = {v for v in variables if isinstance(v, Var)}
    radices: dict[Var, set[int]] = {}
    for atom in ix.walk(*coords):
        if isinstance(atom, ix.Div | ix.Mod) and atom.x in wanted:
            radices.setdefault(atom.x, set()).add(atom.divisor)  # type: ignore[arg-type]
    out: dict[Index, Index] = {}
    for v, divisors in sorted(radices.items(), key=lambda t: t[0].name):
        steps = [1, *sorted(d for d in divisors if d < v.extent), v.extent]
        if all(b % a == 0 for a, b in pairwise(steps)):
            out[v] = _mixed_radix(v, steps)
    return out


def _mixed_radix(v: Var, steps: list[int]) -> Index:
    digits = [(a, b // a) for a, b in pairwise(steps)]
    last = len(digits) - 1
    return ix.add(*(ix.var(f"{v.name}_{last - k}", n) * step for k, (step, n) in enumerate(digits)))
