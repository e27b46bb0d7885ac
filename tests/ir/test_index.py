"""Index expressions against brute force: simplifying changes no value and loosens no bound."""

import random

import numpy as np
import pytest

from fusewright.ir import index as ix
from fusewright.ir import offsets

VARIABLES = (ix.var("a", 4), ix.var("b", 6), ix.var("c", 12))
GRID = dict(
    zip(
        VARIABLES,
        np.meshgrid(*[np.arange(v.hi + 1) for v in VARIABLES], indexing="ij"),
        strict=True,
    )
)


def random_pair(rng, depth):
    """An expression and the same formula as a function of a grid."""
    if depth == 0:
        if rng.random() < 0.7:
            v = rng.choice(VARIABLES)
            return v, lambda e: e[v]
        k = rng.randint(-5, 9)
        return ix.const(k), lambda e: np.full((4, 6, 12), k)
    a, fa = random_pair(rng, depth - 1)
    m = rng.choice([2, 3, 4, 6, 8, 12])
    kind = rng.randrange(6)
    if kind == 0:
        b, fb = random_pair(rng, depth - 1)
        return a + b, lambda e: fa(e) + fb(e)
    if kind == 1:
        b, fb = random_pair(rng, depth - 1)
        pick, fp = rng.choice([(ix.minimum, np.minimum), (ix.maximum, np.maximum)])
        return pick(a, b), lambda e: fp(fa(e), fb(e))
    if kind == 2:
        f = rng.choice([-4, -1, 2, 3, 12])
        return a * f, lambda e: fa(e) * f
    if kind == 3:
        return a // m, lambda e: fa(e) // m
    if kind == 4:
        return a % m, lambda e: fa(e) % m
    b, fb = random_pair(rng, depth - 1)
    return a * m + b % m, lambda e: fa(e) * m + fb(e) % m


@pytest.mark.parametrize("seed", range(20))
def test_simplified_expressions_keep_value_and_bounds(seed):
    rng = random.Random(seed)
    for _ in range(150):
        x, f = random_pair(rng, rng.randint(1, 5))
        want = f(GRID)
        got = np.broadcast_to(ix.evaluate(x, GRID), want.shape)
        assert (want == got).all(), str(x)
        assert x.lo <= got.min() and got.max() <= x.hi, str(x)


@pytest.mark.parametrize("seed", range(10))
def test_conditions_keep_their_truth(seed):
    rng = random.Random(seed)
    for _ in range(100):
        x, _ = random_pair(rng, 3)
        cond = rng.choice([ix.at_least(x, 2), ix.less(x, 5), ix.equals(x, 1)])
        truth = {"ge": lambda v: v >= 0, "eq": lambda v: v == 0}[cond.kind](
            np.broadcast_to(ix.evaluate(cond.x, GRID), (4, 6, 12))
        )
        assert cond.truth in (None, bool(truth.all()))


@pytest.mark.parametrize("seed", range(10))
def test_substitution_is_composition(seed):
    rng = random.Random(seed)
    for _ in range(60):
        x, f = random_pair(rng, 3)
        inner = {v: ix.mod(random_pair(rng, 2)[0], v.hi + 1) for v in VARIABLES}
        env = {v: np.broadcast_to(ix.evaluate(e, GRID), (4, 6, 12)) for v, e in inner.items()}
        got = np.broadcast_to(ix.evaluate(ix.substitute(x, inner), GRID), (4, 6, 12))
        assert (got == f(env)).all(), str(x)


@pytest.mark.parametrize(
    "shapes",
    [((2, 6, 5, 7), (4, 3, 35)), ((60,), (3, 4, 5)), ((8, 9), (2, 2, 2, 3, 3)), ((4, 1, 6), (24,))],
)
def test_reshape_there_and_back_is_the_identity(shapes):
    a, b = shapes
    flat = offsets.flatten(ix.axes(a), offsets.row_major(a))
    through = offsets.flatten(offsets.unflatten(flat, b), offsets.row_major(b))
    assert offsets.unflatten(through, a) == ix.axes(a)


def test_equal_expressions_have_equal_keys_however_they_are_built():
    a, b, _ = VARIABLES
    assert a * 6 + b == b + a * 3 + a * 3
    assert (a * 6 + b) // 6 == a
    assert (a * 6 + b) % 6 == b
