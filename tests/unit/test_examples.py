"""Every example at the small scale: loads both ways, runs in eager, is deterministic."""

import dataclasses
import runpy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor

from fusewright.problem import Problem, build_inputs, build_module, load_problem, seeded

FOLDER = Path(__file__).resolve().parents[2] / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))
FOUNDING = {
    "matmul_sigmoid_sum": ([32768, 32768], [(128, 32768)]),
    "sigmoid": ([], [(4096, 393216)]),
    "gemm_divide_sum_scaling": ([8192, 8192, 1.5], [(1024, 8192)]),
    "gemm_sigmoid_scaling_residual": ([8192, 8192, 2.0], [(1024, 8192)]),
    "sum_reduction": ([1], [(128, 4096, 4095)]),
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSEWRIGHT_EXAMPLE_SCALE", "small")


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """The tensors of a nested output, dataclasses included, in order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from tensors_in(getattr(value, field.name))
    elif isinstance(value, dict):
        yield from (tensor for item in value.values() for tensor in tensors_in(item))
    elif isinstance(value, list | tuple):
        yield from (tensor for item in value for tensor in tensors_in(item))


def run(problem: Problem, seed: int) -> list[torch.Tensor]:
    """Outputs, then the inputs and the state after the call, of a fresh model."""
    module, inputs = build_module(problem, seed=seed), build_inputs(problem, seed=seed)
    with seeded(seed), torch.no_grad():
        outputs = list(tensors_in(module(*inputs)))
    assert outputs
    return [*outputs, *tensors_in(inputs), *tensors_in(dict(module.state_dict()))]


def same(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return len(left) == len(right) and all(
        a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(left, right, strict=True)
    )


def signature(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.requires_grad


def test_there_are_enough_examples() -> None:
    assert len(EXAMPLES) >= 17
    assert set(FOUNDING) <= {path.stem for path in EXAMPLES}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_runs_in_eager_and_is_deterministic(path: Path) -> None:
    problem = load_problem(path, fake=False)
    first = run(problem, seed=1)
    start = time.process_time()
    assert same(first, run(problem, seed=1))
    assert time.process_time() - start < 2.0
    assert not same(first, run(problem, seed=2))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_fake_problem_is_the_image_of_the_real_one(path: Path) -> None:
    fake, real = load_problem(path, fake=True), load_problem(path, fake=False)
    fakes = [*tensors_in(dict(fake.module.state_dict(keep_vars=True))), *tensors_in(fake.inputs)]
    reals = [*tensors_in(dict(real.module.state_dict(keep_vars=True))), *tensors_in(real.inputs)]
    assert fake.warnings == real.warnings == ()
    assert all(isinstance(tensor, FakeTensor) for tensor in fakes)
    assert [signature(tensor) for tensor in fakes] == [signature(tensor) for tensor in reals]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_full_scale_is_larger(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def elements() -> int:
        return sum(tensor.numel() for tensor in tensors_in(load_problem(path, fake=True).inputs))

    monkeypatch.delenv("FUSEWRIGHT_EXAMPLE_SCALE", raising=False)
    full = elements()
    monkeypatch.setenv("FUSEWRIGHT_EXAMPLE_SCALE", "small")
    assert full > elements() > 0


@pytest.mark.parametrize("name", FOUNDING)
def test_founding_problems_have_the_stated_sizes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FUSEWRIGHT_EXAMPLE_SCALE", raising=False)
    problem = load_problem(FOLDER / f"{name}.py", fake=True)
    init_args, shapes = FOUNDING[name]
    assert problem.init_args == init_args
    assert [tuple(tensor.shape) for tensor in problem.inputs] == shapes


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_imports_alone_without_fusewright(path: Path) -> None:
    assert issubclass(runpy.run_path(str(path))["Model"], torch.nn.Module)
    assert "fusewright" not in path.read_text(encoding="utf-8")
