"""The distances of run/verify/metrics.py, on tensors whose errors are known."""

import math

import pytest
import torch

from fusewright.run.verify import metrics
from fusewright.run.verify.metrics import Accumulator, Distance

CPU = torch.device("cpu")


def measure(tensor: torch.Tensor, oracle: torch.Tensor) -> Distance:
    sums = Accumulator(oracle.shape, metrics.root_mean_square(oracle), CPU)
    sums.add(tensor, oracle, metrics.joint_mask(tensor, oracle))
    return sums.result()


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def test_equal_tensors_have_no_distance() -> None:
    assert measure(normal(5, 6), normal(5, 6)) == Distance(0.0, 0.0, 0.0)


def test_norm_is_the_relative_l2_error() -> None:
    oracle, error = normal(20, 30), 1e-4 * normal(20, 30, seed=1)
    expected = float(error.norm() / oracle.norm())
    assert measure(oracle + error, oracle).norm == pytest.approx(expected)


def test_one_wrong_row_shows_in_the_slices_though_the_norm_is_small() -> None:
    oracle = normal(1000, 8)
    oracle[17] *= 1e-6
    wrong = oracle.clone()
    wrong[17] *= 2
    found = measure(wrong, oracle)
    assert found.norm < 1e-6
    assert found.slice == pytest.approx(1.0, rel=0.3)


def test_one_wrong_element_shows_in_the_components_and_is_named() -> None:
    oracle = normal(50, 40, 3)
    wrong = oracle.clone()
    wrong[31, 7, 2] += 1.0
    found = measure(wrong, oracle)
    assert found.where == (31, 7, 2)
    assert found.component == pytest.approx(1 / (abs(float(oracle[31, 7, 2])) + 1), rel=0.1)


@pytest.mark.parametrize("cuts", [(3,), (1, 2, 7), (5, 6)])
def test_pieces_measure_as_the_whole(cuts: tuple[int, ...]) -> None:
    oracle, tensor = normal(11, 4, 5), normal(11, 4, 5) + 1e-3 * normal(11, 4, 5, seed=2)
    sums = Accumulator(oracle.shape, metrics.root_mean_square(oracle), CPU)
    for start, stop in zip((0, *cuts), (*cuts, 11)):
        sums.add(tensor[start:stop], oracle[start:stop], None, start)
    found, whole = sums.result(), measure(tensor, oracle)
    assert found.where == whole.where
    assert found.norm == pytest.approx(whole.norm)
    assert found.slice == pytest.approx(whole.slice)
    assert found.component == pytest.approx(whole.component)


def test_a_tensor_larger_than_a_chunk_measures_as_two_halves() -> None:
    oracle = normal(3, 200_000)
    tensor = oracle + 1e-5 * normal(3, 200_000, seed=3)
    expected = float((tensor - oracle).norm() / oracle.norm())
    assert measure(tensor, oracle).norm == pytest.approx(expected)


def test_elements_that_are_not_finite_are_left_out() -> None:
    oracle, tensor = normal(6, 6), normal(6, 6)
    oracle[2, 3] = tensor[2, 3] = math.inf
    assert measure(tensor, oracle).norm == 0.0


def test_a_zero_oracle_is_measured_against_the_given_scale() -> None:
    sums = Accumulator((10,), 2.0, CPU)
    sums.add(torch.full((10,), 1e-3), torch.zeros(10), None)
    assert sums.result().norm == pytest.approx(0.5e-3)


def test_patterns_of_nan_and_inf() -> None:
    eager = torch.tensor([1.0, math.nan, math.inf, -math.inf, math.inf])
    oracle = torch.tensor([1.0, math.nan, math.inf, -math.inf, 1e300], dtype=torch.float64)
    assert metrics.pattern_mismatches(eager, eager, oracle)[0] == 0
    for index, value in ((0, math.nan), (1, 0.0), (2, math.nan), (3, math.inf)):
        candidate = eager.clone()
        candidate[index] = value
        assert metrics.pattern_mismatches(candidate, eager, oracle) == (1, (index,))
    # Where float32 overflows and float64 does not, either is right.
    candidate = eager.clone()
    candidate[4] = 3e38
    assert metrics.pattern_mismatches(candidate, eager, oracle)[0] == 0


def test_the_bound_follows_the_reference_and_has_a_floor() -> None:
    many = (10**4, 10**8)
    accurate = metrics.bound_of(Distance(1e-8, 1e-8, 1e-8), 5e-7, many)
    assert accurate.norm == 5e-7
    rough = metrics.bound_of(Distance(4e-6, 4e-6, 4e-6), 5e-7, many)
    assert rough.norm == pytest.approx(1.25 * 4e-6, rel=0.04)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_a_scalar_widens_the_bound_only_above_the_floor(shape: tuple[int, ...]) -> None:
    assert metrics.bound_of(Distance(1e-8, 0, 0), 5e-7, shape).norm == 5e-7
    assert metrics.bound_of(Distance(1e-5, 0, 0), 5e-7, shape).norm == pytest.approx(5e-5)


def test_independent_errors_are_counted_along_the_shortest_axis() -> None:
    norms = [
        metrics.bound_of(Distance(1e-5, 0, 0), 5e-7, shape).norm
        for shape in ((9, 1000), (1000, 9), (9, 1, 10), (9,))
    ]
    assert norms == [pytest.approx(2.5e-5)] * 4


@pytest.mark.parametrize(
    ("norm", "name"),
    [
        (1e-7, "more accurate than the reference"),
        (4e-7, "float32 class"),
        (6e-7, "between float32 and TF32"),
        (3e-4, "TF32 class"),
        (3e-3, "half class"),
        (0.1, "below half class"),
    ],
)
def test_classes(norm: float, name: str) -> None:
    assert metrics.accuracy_class(norm, 2e-7, 5e-7, 5e-4) == name


def test_tensors_without_elements_are_at_no_distance() -> None:
    empty = torch.zeros(3, 0, 2, dtype=torch.float64)
    assert measure(empty, empty) == Distance(0.0, 0.0, 0.0)
