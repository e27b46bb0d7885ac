"""What draws of random rounding make of a judgement, on tensors whose errors are known."""

from collections.abc import Sequence
from statistics import NormalDist

import pytest
import torch

from fusewright.run.verify import judge
from fusewright.run.verify.judge import Expected

SHAPE = (40, 50)


def normal(seed: int) -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


RIGHT, NOISE = normal(0), normal(1)


def expected(eager: torch.Tensor, right: torch.Tensor, draws: Sequence[torch.Tensor]) -> Expected:
    """Of a reference without draws, then with them."""

    def slices(others: Sequence[torch.Tensor]) -> judge.Slices:
        made = [{"y": t} for t in others]
        return lambda allowed: [judge.Slice(0, {"y": eager}, {"y": right}, made if allowed else ())]

    first = judge.expect({"y": eager}, slices(()), True, 1.0)
    return judge.with_draws(first, slices(draws))["y"]


def verdict(error: float, drawn: Sequence[float]) -> bool | None:
    """Of a candidate with an error of that size, where eager errs by 1e-7 and the draws as said."""
    eager, candidate = ((RIGHT + e * NOISE).float() for e in (1e-7, error))
    draws = [RIGHT + e * normal(k + 2) for k, e in enumerate(drawn)]
    return judge.judge(candidate, expected(eager, RIGHT, draws)).ok


@pytest.mark.parametrize(
    ("error", "drawn", "ok"),
    [
        (1e-5, [], False),
        (1e-5, [1e-7] * 32, False),
        (1e-5, [1e-5] * 32, True),
        # One draw as bad as the candidate is enough.
        (1e-5, [1e-7] * 31 + [1e-5], True),
        # Draws of one size leave nothing open, those without a scale what is not far beyond them.
        (2e-5, [1e-5] * 32, False),
        (2e-5, [1e-7] * 31 + [1e-5], None),
        (2e-5, [10.0 ** (-5 - k / 16) for k in range(32)], None),
        (2e-4, [10.0 ** (-5 - k / 16) for k in range(32)], None),
        (2e-2, [10.0 ** (-5 - k / 16) for k in range(32)], False),
        # What scatters as one normal deviate does has a scale.
        (2e-5, [1e-5 * abs(NormalDist().inv_cdf((k + 0.5) / 128)) for k in range(128)], True),
        (6e-5, [1e-5 * abs(NormalDist().inv_cdf((k + 0.5) / 128)) for k in range(128)], False),
        # A few draws say nothing of how they scatter.
        (2e-5, [1e-7, 1e-7, 1e-5], False),
    ],
)
def test_an_error_is_held_against_the_draws(
    error: float, drawn: list[float], ok: bool | None
) -> None:
    assert verdict(error, drawn) is ok


@pytest.mark.parametrize(("error", "ok"), [(4e-6, True), (6e-6, False)])
def test_what_another_way_of_eager_makes_is_right_unless_it_is_nowhere_near(
    error: float, ok: bool
) -> None:
    eager, way, candidate = ((RIGHT + e * NOISE).float() for e in (1e-7, error, error))

    def slices(others: bool) -> list[judge.Slice]:
        return [judge.Slice(0, {"y": eager}, {"y": RIGHT}, [{"y": way}] if others else ())]

    alone = judge.expect({"y": eager}, lambda _: slices(False), True, 1.0)
    assert judge.judge(candidate, alone["y"]).ok is False
    assert judge.judge(candidate, judge.with_ways(alone, slices)["y"]).ok is ok


def test_integers_may_be_what_rounding_makes_of_them() -> None:
    eager = torch.arange(24).reshape(6, 4)
    draw = eager.clone()
    draw[2, 1], draw[5, 3] = 100, 200
    known = expected(eager, eager, [eager, draw])
    for place, value, ok in (
        ((2, 1), 100, True),
        ((5, 3), 200, True),
        ((2, 1), 200, False),
        ((0, 0), 100, False),
    ):
        candidate = eager.clone()
        candidate[place] = value
        assert judge.judge(candidate, known).ok is ok
    assert judge.judge(eager, known).ok is True


def test_flips_are_found_in_slices_too() -> None:
    eager, drawn = torch.zeros(5, 3, dtype=torch.int64), torch.zeros(5, 3, dtype=torch.int64)
    drawn[4, 1] = 7

    def slices(others: bool) -> list[judge.Slice]:
        def cut(t: torch.Tensor, a: int, b: int) -> dict[str, torch.Tensor]:
            return {"y": t[a:b]}

        return [
            judge.Slice(a, cut(eager, a, b), cut(eager, a, b), [cut(drawn, a, b)] if others else ())
            for a, b in ((0, 2), (2, 4), (4, 5))
        ]

    known = judge.with_draws(judge.expect({"y": eager}, slices, True, 1.0), slices)["y"]
    assert judge.judge(drawn, known).ok is True
    assert judge.judge(drawn.roll(1, 0), known).ok is False
