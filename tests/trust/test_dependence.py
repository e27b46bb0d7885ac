"""Whether elements of a random output depend on one another as the reference's do."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from fusewright.run.verify import dependence

X = torch.randn(6, 8, 40, generator=torch.Generator().manual_seed(1))
P = 0.3
Draw = Callable[[torch.Tensor], torch.Tensor]


def masked(*shape: int) -> Draw:
    return lambda x: x * (torch.rand(shape) >= P) / (1 - P)


def each(x: torch.Tensor) -> torch.Tensor:
    return F.dropout(x, P)


def channels(x: torch.Tensor) -> torch.Tensor:
    return F.dropout1d(x, P)


def alpha(x: torch.Tensor) -> torch.Tensor:
    return F.alpha_dropout(x, P, True)


def alpha_channels(x: torch.Tensor) -> torch.Tensor:
    return F.feature_alpha_dropout(x, P, True)


def said(reference: Draw, candidate: Draw, first: int) -> str:
    """What `differs` says of 40 calls of each."""
    sides = []
    for draw, seed in ((reference, 100), (candidate, first)):
        torch.manual_seed(seed)
        sides.append([dependence.corner(draw(X)) for _ in range(40)])
    return dependence.differs(*sides)


@pytest.mark.parametrize("draw", [each, channels, alpha, alpha_channels])
def test_equal_laws_agree_whatever_the_numbers(draw: Draw) -> None:
    assert [said(draw, draw, seed) for seed in (1, 2, 3)] == [""] * 3


@pytest.mark.parametrize(
    ("reference", "candidate", "axes"),
    [
        (each, masked(1, 8, 40), "axis 0"),
        (each, masked(6, 1, 40), "axis 1"),
        (each, masked(6, 8, 1), "axis 2"),
        (each, masked(6, 1, 1), "axis 1"),
        (each, channels, "axis 2"),
        (channels, each, "axis 2"),
        (alpha, alpha_channels, "axis 2"),
        (alpha_channels, alpha, "axis 2"),
    ],
)
def test_masks_that_elements_share_show(reference: Draw, candidate: Draw, axes: str) -> None:
    assert f"along {axes} have" in said(reference, candidate, 1)


@pytest.mark.parametrize("shape", [(), (1,), (0, 3)])
def test_without_pairs_nothing_depends(shape: tuple[int, ...]) -> None:
    samples = [torch.rand(shape) for _ in range(40)]
    assert dependence.differs(samples, samples) == ""


@pytest.mark.parametrize("shape", [(5000,), (3, 5000), (2, 3, 4, 5, 6, 7, 8), (64, 64, 64)])
def test_the_corner_is_small_and_uses_what_it_may(shape: tuple[int, ...]) -> None:
    corner = dependence.corner(torch.zeros(shape))
    assert 256 <= corner.numel() <= 1024 and corner.ndim <= 5
