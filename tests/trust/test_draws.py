"""What is drawn for a verification: everything continuous, nothing that carries a meaning."""

import math

import pytest
import torch

from fusewright.run.verify import draws


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    "kept",
    [
        torch.arange(30),
        torch.rand(40) > 0.5,
        torch.ones(10, 10).tril(),
        torch.full((9, 9), -math.inf).triu(1),
        torch.empty(0, 3),
    ],
    ids=["indices", "booleans", "mask", "additive mask", "empty"],
)
@pytest.mark.parametrize("kind", sorted(draws.REDRAWN))
def test_data_with_a_meaning_is_left_alone(kept: torch.Tensor, kind: str) -> None:
    assert torch.equal(draws.redraw(kept, kind, generator()), kept)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("kind", sorted(draws.REDRAWN))
def test_a_redraw_is_finite_new_and_repeatable(kind: str, dtype: torch.dtype) -> None:
    given = torch.rand(16, 33).to(dtype)
    first, second = (draws.redraw(given, kind, generator(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.dtype == dtype and first.shape == given.shape
    assert bool(first.isfinite().all())
    assert not torch.equal(first, draws.redraw(given, kind, generator(4)))


def test_kinds_have_the_character_they_are_named_for() -> None:
    given = torch.rand(200, 100)
    scale = float(given.square().mean().sqrt())
    assert float(draws.redraw(given, "shifted", generator()).mean()) > 4 * scale
    assert float(draws.redraw(given, "negative", generator()).mean()) < -2 * scale
    assert float(draws.redraw(given, "large", generator()).std()) > 9 * scale
    assert float(draws.redraw(given, "small", generator()).std()) < 0.011 * scale
    heavy = draws.redraw(given, "heavy", generator())
    assert float(heavy.abs().max() / heavy.std()) > 10
    ties = draws.redraw(given, "ties", generator())
    assert len(ties.unique()) < 25
    assert bool((ties == 0).any())


def test_only_the_tail_changes() -> None:
    given = torch.rand(5, 7)
    changed = draws.with_new_tail(given, generator())
    assert torch.equal(changed[:-1], given[:-1])
    assert not torch.equal(changed[-1], given[-1])


def test_special_values_are_all_there() -> None:
    changed = draws.with_special_values(torch.rand(40, 9), generator())
    assert bool(changed.isnan().any()) and bool((changed == -math.inf).any())
    assert bool(((changed.abs() > 0) & (changed.abs() < 1e-38)).any())


def test_weights_keep_mean_and_spread_and_constants_get_one() -> None:
    weight = 3 + 0.1 * torch.randn(4000, generator=generator(1))
    drawn = draws.redraw_weight(weight, "random", generator())
    assert float(drawn.mean()) == pytest.approx(3, abs=0.02)
    assert float(drawn.std()) == pytest.approx(0.1, rel=0.1)
    ones = draws.redraw_weight(torch.ones(4000), "random", generator())
    assert float(ones.std()) == pytest.approx(0.5, rel=0.1)


def test_statistics_stay_positive_and_zeros_get_either_sign() -> None:
    assert float(draws.redraw_positive(torch.ones(100), generator()).min()) >= 0.5
    assert float(draws.redraw_positive(torch.zeros(100), generator()).min()) < 0


def test_special_values_are_spread_over_tensors_of_any_size() -> None:
    # 2^25 - 1 is no float32 number.
    assert draws.special_places(1 << 25)[::7] == [0, (1 << 25) - 1]
    assert draws.special_places(1) == [0]
    assert draws.special_places(8) == [0, 7]
