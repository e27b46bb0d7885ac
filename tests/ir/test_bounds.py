"""Bounds under guards: proofs must be true and counterexamples real, on random expressions."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from fusewright.ir import index as ix
from fusewright.ir.bounds import injective, violation

A, B, C = ix.Var("a", 4), ix.Var("b", 6), ix.Var("c", 5)
POINTS = [dict(zip((A, B, C), p)) for p in itertools.product(range(4), range(6), range(5))]


def combine(children):
    pairs = st.tuples(children, children)
    factor = st.sampled_from([-3, -1, 2, 3, 6])
    divisor = st.sampled_from([2, 3, 4, 6])
    return (
        pairs.map(lambda p: p[0] + p[1])
        | st.tuples(children, factor).map(lambda p: p[0] * p[1])
        | st.tuples(children, divisor).map(lambda p: p[0] // p[1])
        | st.tuples(children, divisor).map(lambda p: p[0] % p[1])
        | pairs.map(lambda p: ix.minimum(*p))
    )


expressions = st.recursive(
    st.sampled_from([A, B, C]) | st.integers(-4, 4).map(ix.const), combine, max_leaves=6
)
conditions = st.lists(
    st.tuples(st.sampled_from(["ge", "eq"]), expressions).map(lambda p: ix.Cond(*p)), max_size=2
).map(tuple)
guards = st.lists(st.tuples(conditions, st.booleans()), max_size=2).map(tuple)


def admitted(guards, point):
    def holds(c):
        x = ix.evaluate(c.x, point)
        return x >= 0 if c.kind == "ge" else x == 0

    return all(all(holds(c) for c in conds) == wanted for conds, wanted in guards)


@given(expressions, st.integers(1, 12), guards)
def test_violation_agrees_with_enumeration(value, extent, guards):
    bad = any(admitted(guards, p) and not 0 <= ix.evaluate(value, p) < extent for p in POINTS)
    assert (violation(value, extent, guards) is not None) == bad


@given(expressions)
def test_injective_agrees_with_enumeration(offset):
    values = [ix.evaluate(offset, p) for p in POINTS]
    assert injective(offset, (A, B, C)) == (len(set(values)) == len(values))


def test_large_grids_are_proved_by_the_guards():
    i, j = ix.Var("i", 10**6), ix.Var("j", 10**6)
    right, below = ix.inside(i - 3, 10**6), ix.inside(j + 5, 10**6)
    offset = (i - 3) * 10**6 + (j + 5)
    assert violation(offset, 10**12, ((right + below, True),)) is None
    assert violation(offset, 10**12, ((below, True),)) is not None


def test_large_row_major_offsets_are_injective():
    i, j = ix.Var("i", 10**6), ix.Var("j", 10**5)
    assert injective(i * 10**5 + j, (i, j)) is True
    assert injective(i, (i, j)) is False
