"""The limits of run/verify/tails.py: honest draws hardly ever pass them, and they are no wider than
the draws scatter."""

from collections.abc import Callable

import pytest
import torch

from fusewright.run.verify import tails

Draw = Callable[[torch.Generator, int], torch.Tensor]


def norms(count: int) -> Draw:
    """Of `count` independent errors: what linear rounding makes."""
    return lambda g, n: torch.randn(n, count, generator=g, dtype=torch.float64).norm(dim=1)


def power_law(exponent: float) -> Draw:
    return lambda g, n: torch.rand(n, generator=g, dtype=torch.float64).pow(-exponent)


def log_normal(deviation: float) -> Draw:
    return lambda g, n: (deviation * torch.randn(n, generator=g, dtype=torch.float64)).exp()


@pytest.mark.parametrize("count", [32, 128])
@pytest.mark.parametrize(
    ("draw", "most"),
    [
        (norms(1), 1e-4),
        (norms(5), 1e-5),
        (norms(1000), 1e-5),
        (log_normal(0.2), 1e-4),
        (log_normal(1.0), 5e-3),
        (power_law(0.3), 5e-3),
        (power_law(1.0), 1e-3),
    ],
    ids=["normal", "norm of 5", "norm of 1000", "narrow", "wide", "power law", "no mean"],
)
def test_another_draw_hardly_ever_passes_the_limit(draw: Draw, most: float, count: int) -> None:
    others = draw(torch.Generator().manual_seed(1), 100_000)
    missed = 0.0
    for seed in range(100):
        seen = draw(torch.Generator().manual_seed(2 + seed), count).tolist()
        allowed = 1.25 * max(tails.limit(seen), *seen)
        missed += float((others > allowed).double().mean()) / 100
    assert missed <= most


@pytest.mark.parametrize(
    ("draw", "count", "widest"),
    [(norms(10_000), 14, 1.1), (norms(50), 128, 1.4), (norms(5), 128, 2.2)],
    ids=["large", "small", "few"],
)
def test_draws_of_one_size_leave_little_open(draw: Draw, count: int, widest: float) -> None:
    seen = draw(torch.Generator().manual_seed(0), count).tolist()
    assert max(seen) < tails.limit(seen) < widest * max(seen)


def test_draws_that_are_equal_are_their_own_limit() -> None:
    assert tails.limit([2.0] * 6) == 2.0
    assert tails.limit([0.0] * 6) == 0.0


def test_one_large_draw_among_many_leaves_much_open() -> None:
    assert tails.limit([1.0] * 31 + [100.0]) > 1e3
