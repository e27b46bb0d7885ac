"""Unchanged modules in float64, with rounded operands, with random rounding, an op left out."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fusewright.run.verify import oracle
from fusewright.run.verify.arithmetic import (
    Float64,
    Jitter,
    OpSkipper,
    round_bf16,
    round_tf32,
)


def wide(module: nn.Module, *inputs: torch.Tensor, seed: int = 0, **mode: object) -> torch.Tensor:
    arithmetic = Float64(torch.float32, **mode)  # type: ignore[arg-type]
    copies = oracle.widen_inputs(list(inputs))
    return oracle.run_wide(oracle.widen(module), copies, seed, arithmetic).output


class Casts(nn.Module):
    """Asks for float32 in every way there is."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = torch.tensor(1 / 3, dtype=torch.float32)
        y = x.float() * scale.to(x.dtype) + torch.zeros(x.shape, dtype=torch.float32)
        y = torch.softmax(y, dim=-1, dtype=torch.float32) @ torch.full((6, 6), 0.1).float()
        return y.to(torch.float16).float().sum(-1)


def test_casts_inside_the_forward_stay_in_float64() -> None:
    x = torch.randn(4, 6)
    found = wide(Casts(), x)
    scaled = x.double() * float(torch.tensor(1 / 3, dtype=torch.float32))
    right = (torch.softmax(scaled, -1) @ torch.full((6, 6), 0.1, dtype=torch.float64)).sum(-1)
    assert found.dtype == torch.float64
    # 0.1 is a float64 default here, as torch.full takes the default dtype of the run.
    torch.testing.assert_close(found, right, rtol=1e-13, atol=0)


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_draws_the_mask_that_float32_draws(p: float) -> None:
    class Drop(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.dropout(x, p, True) * torch.rand(x.shape) + torch.randn_like(x)

    x = torch.randn(64, 32)
    eager = oracle.run(Drop(), [x.clone()], 5).output
    torch.testing.assert_close(wide(Drop(), x, seed=5).float(), eager)


def test_in_place_random_ops_are_widened_in_place() -> None:
    class Noise(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + torch.empty_like(x).uniform_(-1, 1) + torch.zeros_like(x).bernoulli_(0.5)

    x = torch.randn(10, 10)
    eager = oracle.run(Noise(), [x.clone()], 9).output
    torch.testing.assert_close(wide(Noise(), x, seed=9).float(), eager)


def test_infinities_become_the_largest_of_the_working_precision() -> None:
    class Finite(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nan_to_num(x / 0, nan=0.5) + torch.nan_to_num_(x / 0, 0.5, 3.0)

    x = torch.tensor([1.0, -1.0, 0.0])
    expected = oracle.run(Finite(), [x], 0).output
    assert expected[0] == torch.finfo(torch.float32).max
    torch.testing.assert_close(wide(Finite(), x).float(), expected, rtol=0, atol=0)


def test_tf32_keeps_ten_bits() -> None:
    x = torch.tensor([1 + 2.0**-10, 1 + 2.0**-11, 1 + 2.0**-12, -3.0, float("inf"), float("nan")])
    expected = torch.tensor([1 + 2.0**-10, 1 + 2.0**-10, 1.0, -3.0, float("inf"), float("nan")])
    torch.testing.assert_close(round_tf32(x), expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(("rounding", "unit"), [(round_tf32, 2.0**-11), (round_bf16, 2.0**-8)])
def test_rounded_operands_show_in_contractions_only(rounding: object, unit: float) -> None:
    layer, x = nn.Linear(64, 64), torch.randn(32, 64)
    exact = wide(layer, x)
    error = (wide(layer, x, rounding=rounding) - exact).norm() / exact.norm()
    assert unit / 20 < float(error) < unit
    pointwise = nn.Sequential(nn.GELU(), nn.LayerNorm(64))
    assert torch.equal(wide(pointwise, x, rounding=rounding), wide(pointwise, x))


def test_random_rounding_moves_about_as_much_as_float32_errs() -> None:
    module, x = nn.Sequential(nn.Linear(50, 40), nn.GELU(), nn.LayerNorm(40)), torch.randn(30, 50)
    exact = wide(module, x)
    jitter = Jitter(2.0**-24, 1)
    moved = float((wide(module, x, jitter=jitter) - exact).norm() / exact.norm())
    eager = float((oracle.run(module, [x], 0).output.double() - exact).norm() / exact.norm())
    assert eager / 4 < moved < eager * 4


def test_random_rounding_moves_equal_values_alike() -> None:
    values = torch.randn(1000, dtype=torch.float64)
    moved = Jitter(2.0**-24, 3).moved(torch.stack([values, values.flip(0)]))
    assert torch.equal(moved[0], moved[1].flip(0))
    by = (moved[0] / values - 1) * 2.0**24
    assert float(by.square().mean().sqrt()) == pytest.approx(1.0, rel=0.1)
    assert abs(float(by.mean())) < 0.15 and float(by.abs().max()) < 1.74
    assert not torch.equal(moved[0], Jitter(2.0**-24, 4).moved(values))


@pytest.mark.parametrize(
    "layer",
    [nn.Linear(4096, 64), nn.Conv2d(256, 64, 4), nn.Conv2d(16, 8, 3), nn.Linear(16, 64)],
    ids=["long", "long convolution", "convolution", "short"],
)
def test_a_sum_may_err_more_than_a_rounding_but_stays_in_the_floor(layer: nn.Module) -> None:
    shape = (64, 4096) if getattr(layer, "in_features", 0) == 4096 else (64, 16)
    if isinstance(layer, nn.Conv2d):
        shape = (8, layer.in_channels, 4, 4)
    x = torch.randn(shape)
    exact = wide(layer, x)
    plain, sums = (
        float((wide(layer, x, jitter=Jitter(2.0**-24, 1, sums=on)) - exact).norm() / exact.norm())
        for on in (False, True)
    )
    assert plain < sums and 1.25 * sums < 5e-7


def test_each_op_can_be_left_out() -> None:
    class Chain(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x.t().contiguous() * 2).add_(3)

    counter = OpSkipper()
    x = torch.randn(4, 4)
    with counter:
        Chain()(x)
    assert counter.seen == ["mul", "relu", "add_"]
    for skip, right in enumerate((torch.relu(x.t()) + 3, 2 * x.t() + 3, torch.relu(2 * x.t()))):
        with OpSkipper(skip):
            torch.testing.assert_close(Chain()(x), right)
