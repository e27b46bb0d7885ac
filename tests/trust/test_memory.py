"""What a verification holds at its peak, as a multiple of the problem: both processes together.

The workers run in this process, lending to each other as they do on a GPU, under torch's profiler,
which reports every block that its allocator hands out and takes back.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from fusewright.run.verify import (
    draws,
    driver,
    guard,
    handover,
    metrics,
    oracle,
    power,
    runner,
    values,
    worker,
)
from fusewright.run.verify.arithmetic import Float64
from fusewright.run.verify.isolate import WorkerRaised
from fusewright.run.verify.trial import Settings, Trial

FILE = """
import torch
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        {made}
    def forward(self, x):
        return {body}
def get_inputs():
    return [torch.rand({shape})]
ModelNew = Model
"""
SIZE = 4 << 20


class Lender(handover.Lender):
    """Lends within one process."""

    loans: ClassVar[dict[tuple[int, int], torch.Tensor]] = {}

    def takes(self, tensor: torch.Tensor) -> bool:
        return tensor.nbytes >= SIZE // 16

    def lend(self, tensor: torch.Tensor) -> dict[str, Any]:
        self.count += 1
        self.loans[id(self), self.count] = tensor.detach().contiguous()
        return {"key": self.count, "owner": id(self)}

    def borrow(self, spec: dict[str, Any]) -> torch.Tensor:
        return self.loans[spec["lent"]["owner"], spec["lent"]["key"]]

    def take_back(self, keys: list[int]) -> None:
        for key in keys:
            self.loans.pop((id(self), key), None)


class Local:
    """A worker in this process."""

    def __init__(self, role: str) -> None:
        self.role = role
        self.commands = worker.verifier_commands(runner.Session(lender=Lender()))

    def call(self, command: str, _: float, **arguments: Any) -> Any:
        message = {"command": command, "arguments": arguments}
        reply = worker.answer(self.commands, message)
        if "error" in reply:
            failure = WorkerRaised(**reply["error"])
            failure.role = self.role
            raise failure
        return reply["result"]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """All sizes that bound a buffer, as far below SIZE as they are below a GPU's problems."""
    monkeypatch.setattr(metrics, "_CPU_CHUNK", SIZE // 64)
    monkeypatch.setattr(power, "_BUDGET_S", 0.0)
    monkeypatch.setattr(draws, "_PIECE", SIZE // 64)
    monkeypatch.setattr(oracle, "KEPT_BYTES", SIZE // 4)
    monkeypatch.setattr(runner, "LARGE_BYTES", SIZE // 8)
    monkeypatch.setattr(values, "LARGE_BYTES", SIZE // 8)
    monkeypatch.setattr(guard, "poison_host_memory", lambda: False)
    # The candidate of these tests shares the process of all the others.
    monkeypatch.setattr(guard, "hide_own_modules", lambda: None)
    monkeypatch.setattr(guard, "findings", lambda _: [])
    with Float64(torch.float32):
        torch.zeros(1).add(1)
    yield
    Lender.loans.clear()


def peak(tmp_path: Path, made: str, body: str, shape: str) -> tuple[Trial, float]:
    """The finished trial of a right file, and its peak as a multiple of SIZE."""
    path = tmp_path / "model.py"
    path.write_text(FILE.format(made=made, body=body, shape=shape))
    for owner in ("referee", "candidate"):
        (tmp_path / owner).mkdir()
    workers: Any = (Local("referee"), Local("candidate"))
    settings = Settings(path, path, "cpu", "match", 2, 300.0)
    nursery: Any = None
    trial = Trial(settings, nursery, tmp_path, workers[0], workers[1], lambda _: None)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        driver.run_checks(trial)
    recorded: Any = profiler.profiler
    events = recorded.kineto_results.events()
    moves = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    held = highest = 0
    for _, size in moves:
        held += size
        highest = max(highest, held)
    return trial, highest / SIZE


@pytest.mark.parametrize(
    ("made", "body", "shape", "free", "bound"),
    [
        # The gradients: loan, a copy that is no leaf, output, and two gradients of it.
        ("pass", "torch.sigmoid(x)", "128, 8192", 3, 5.0),
        # Strided inputs: loan, and as long again twice.
        ("pass", "x.sum(1, keepdim=True)", "128, 64, 128", 3, 3.5),
        # The weights: as constructed and drawn; in float64; in three modules; an oracle's gradient.
        (
            "self.linear = torch.nn.Linear(1024, 1024)",
            "self.linear(x).sum(1)",
            "64, 1024",
            12,
            13.0,
        ),
    ],
    ids=["output", "input", "weights"],
)
@pytest.mark.usefixtures("small")
def test_what_a_verification_holds(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    made: str,
    body: str,
    shape: str,
    free: int,
    bound: float,
) -> None:
    monkeypatch.setattr(oracle, "available_bytes", lambda _: free * SIZE)
    trial, multiple = peak(tmp_path, made, body, shape)
    assert not trial.undecided
    assert all(check.outcome in ("pass", "skip") for check in trial.checks)
    assert 2.0 < multiple < bound
