"""Proofs and counterexamples for index expressions under guards; used by the checkers.

Interval arithmetic proves most bounds, a combination with the guards' own inequalities most of the
rest. What neither decides is tested on a grid of boundary points: a counterexample found there is
real, so the checkers never reject a correct expression. No IR node is looked at here.
"""

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np

from . import index as ix
from .index import Conds, Index, Var

# Points of the largest grid that is tested.
GRID = 1 << 16

Guards = tuple[tuple[Conds, bool], ...]
"""Nested guards: conditions, and whether they hold (True) or fail (False) as a conjunction."""


def violation(value: Index, extent: int, guards: Guards = ()) -> dict[str, int] | None:
    """Loop variables for which the guards admit a `value` outside [0, extent); None if none known.

    None is a proof whenever the bounds, the guards' inequalities or a full enumeration decide.
    """
    if any(wanted and conds == ix.FALSE for conds, wanted in guards):
        return None
    facts = _inequalities(guards)
    if _nonnegative(value, facts) and _nonnegative(ix.const(extent - 1) - value, facts):
        return None
    return _search(value, extent, guards)


def _inequalities(guards: Guards) -> list[Index]:
    """Expressions that the guards say are at least 0."""
    facts = []
    for conds, wanted in guards:
        if wanted:
            facts += [c.x for c in conds]
            facts += [-1 * c.x for c in conds if c.kind == "eq"]
        elif len(conds) == 1 and conds[0].kind == "ge":
            facts.append(-1 - conds[0].x)
    return facts


def _nonnegative(value: Index, facts: Sequence[Index]) -> bool:
    """True when `value >= 0` follows from bounds, subtracting multiples of the facts greedily."""
    for fact in facts:
        if value.lo >= 0:
            return True
        reduced = [value - k * fact for k in _multiples(value, fact)]
        value = max([value, *reduced], key=lambda e: e.lo)
    return value.lo >= 0


def _multiples(value: Index, fact: Index) -> list[int]:
    """Positive factors for which a term of `value - factor * fact` cancels."""
    have = {a: c for c, a in ix.parts(value)[1]}
    pairs = [(have.get(a, 0), c) for c, a in ix.parts(fact)[1]]
    return sorted({h // c for h, c in pairs if h and h % c == 0 and h // c > 0})


def _search(value: Index, extent: int, guards: Guards) -> dict[str, int] | None:
    conditions = [c.x for conds, _ in guards for c in conds]
    variables = ix.variables(value, *conditions)
    axes = _sample(variables)
    grid = np.meshgrid(*axes, indexing="ij", sparse=True) if axes else []
    env: dict[Index, np.ndarray] = dict(zip(variables, grid, strict=True))
    found = np.asarray(ix.evaluate(value, env))
    bad = (found < 0) | (found >= extent)
    for conds, wanted in guards:
        bad = bad & (_holds(conds, env) == wanted)
    at = np.argwhere(np.broadcast_to(bad, tuple(len(a) for a in axes)))
    if not len(at):
        return None
    return {v.name: int(a[k]) for v, a, k in zip(variables, axes, at[0], strict=True)}


def _holds(conds: Conds, env: Mapping[Index, np.ndarray]) -> np.ndarray:
    out = np.asarray(True)
    for c in conds:
        x = np.asarray(ix.evaluate(c.x, env))
        out = out & (x >= 0 if c.kind == "ge" else x == 0)
    return out


def _sample(variables: Sequence[Var]) -> list[np.ndarray]:
    """All values of each variable where their product is small, else its ends and some between."""
    if prod(v.extent for v in variables) <= GRID:
        return [np.arange(v.extent) for v in variables]
    count = max(2, int(GRID ** (1 / len(variables))))
    return [_spread(v.extent, count) for v in variables]


def _spread(extent: int, count: int) -> np.ndarray:
    ends = min(count // 4 + 1, extent)
    between = np.linspace(0, extent - 1, max(count - 2 * ends, 2)).astype(np.int64)
    return np.unique(np.concatenate([np.arange(ends), between, extent - 1 - np.arange(ends)]))


def injective(offset: Index, variables: Sequence[Var], inside: Conds = ()) -> bool | None:
    """Whether distinct values of `variables`, where `inside` holds, give distinct offsets; None
    when not decided.

    Affine offsets are decided by their mixed-radix form, others by enumeration where that is small.
    """
    if inside:
        return _enumerated_injective(offset, [v for v in variables if v.extent > 1], inside)
    _, terms = ix.parts(offset)
    factors = {a: abs(c) for c, a in terms}
    looping = [v for v in variables if v.extent > 1]
    if any(ix.coefficient(offset, v) == 0 for v in looping):
        return False
    if all(v in factors for v in looping) and len(factors) == len(looping):
        reach = 0
        for v in sorted(looping, key=lambda v: factors[v]):
            if factors[v] <= reach:
                break
            reach += factors[v] * (v.extent - 1)
        else:
            return True
    return _enumerated_injective(offset, looping)


def _enumerated_injective(
    offset: Index, variables: Sequence[Var], inside: Conds = ()
) -> bool | None:
    points = prod(v.extent for v in variables)
    if points > GRID:
        return None
    axes = [np.arange(v.extent) for v in variables]
    grid = np.meshgrid(*axes, indexing="ij", sparse=True) if axes else []
    env: dict[Index, np.ndarray] = dict(zip(variables, grid, strict=True))
    values = np.asarray(ix.evaluate(offset, env))
    values = np.broadcast_to(values, tuple(v.extent for v in variables))
    for cond in inside:
        x = np.broadcast_to(np.asarray(ix.evaluate(cond.x, env)), values.shape)
        values = np.where((x >= 0) if cond.kind == "ge" else (x == 0), values, -1)
    values = values[values >= 0] if inside else values
    return len(np.unique(values)) == values.size
