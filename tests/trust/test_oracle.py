"""The referee's expectations: whole, in slices when memory is short, or without float64."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fusewright.run.verify import answers, drawing, oracle, power, referee, runner, tensors
from fusewright.run.verify.book import Book

SEPARABLE = "torch.softmax(self.linear(x), dim=-1)"
MIXING = "torch.nn.functional.batch_norm(self.linear(x), None, None, training=True)"
FILE = """
import torch
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(8, 6)
    def forward(self, x):
        return {body}
def get_inputs():
    return [torch.randn(32, 8)]
"""


@pytest.fixture
def make(tmp_path: Path) -> Callable[[str], Book]:
    """A referee's book for a reference whose forward returns the given expression."""

    def made(body: str) -> Book:
        path = tmp_path / "reference.py"
        path.write_text(FILE.replace("{body}", body))
        book = Book(runner.Session())
        runner.load(book.session, str(path), "Model", "cpu", poison=False)
        init = drawing.init_arguments(book, str(tmp_path / "init"))
        runner.construct(book.session, "reference", init, "cpu")
        drawing.draw_weights(book, "given", "given", 0, str(tmp_path / "w"))
        drawing.draw_inputs(book, "x", "given", 0, str(tmp_path / "x"), None)
        return book

    return made


def expect(book: Book) -> dict[str, Any]:
    return referee.expect(book, "p", "given", "x", 7, True)


def answer(book: Book, tmp_path: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The finding for eager's output after `change`."""
    with torch.no_grad():
        output = book.session.slots["reference"](*referee.fresh_inputs(book, PLACE))
    spec = tensors.dump(change(output), str(tmp_path / "answer"))
    return answers.judge_call(book, "p", spec, None)[0]


PLACE = referee.Point("given", "x", 7, True)


def scarce(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oracle, "slices_needed", lambda *_: 5)


def test_whole_oracle(make: Callable[[str], Book], tmp_path: Path) -> None:
    book = make(SEPARABLE)
    assert expect(book)["oracle"] == "float64"
    found = answer(book, tmp_path, lambda y: y)
    assert found["ok"] and 0 < found["norm"] < 2e-7
    assert answer(book, tmp_path, lambda y: y * (1 + 1e-5))["ok"] is False


def test_slices_measure_as_the_whole(
    make: Callable[[str], Book], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = make(SEPARABLE)
    expect(book)
    whole = answer(book, tmp_path, lambda y: y + 1e-4)
    scarce(monkeypatch)
    assert expect(book)["oracle"] == "float64 in 16 slices"
    sliced = answer(book, tmp_path, lambda y: y + 1e-4)
    assert sliced["norm"] == pytest.approx(whole["norm"], rel=1e-6)
    assert answer(book, tmp_path, lambda y: y)["ok"] is True

    def last_row_wrong(y: torch.Tensor) -> torch.Tensor:
        return torch.cat([y[:-1], y[:1]])

    found = answer(book, tmp_path, last_row_wrong)
    assert found["ok"] is False and "at [31, " in found["reason"]


def test_nulls_are_tried_on_the_first_slice(
    make: Callable[[str], Book], monkeypatch: pytest.MonkeyPatch
) -> None:
    book = make(SEPARABLE)
    scarce(monkeypatch)
    expect(book)
    found = {record["name"]: record["status"] for record in power.nulls(book, "p", [])}
    assert found["zeros as output"] == "rejected"
    assert found["TF32 arithmetic"] == "rejected"


def test_a_batch_that_mixes_is_not_sliced_but_undecided(
    make: Callable[[str], Book], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = make(MIXING)
    scarce(monkeypatch)
    assert "cannot be cut along its batch" in expect(book)["oracle"]
    assert answer(book, tmp_path, lambda y: y)["ok"] is True
    assert answer(book, tmp_path, lambda y: y * (1 + 1e-5))["ok"] is None
    assert answer(book, tmp_path, lambda y: y * 1.1)["ok"] is False


def test_a_forward_without_float64_says_why(make: Callable[[str], Book]) -> None:
    book = make("self.linear(x) * {torch.float32: 2.0}[x.dtype]")
    assert "the reference does not run in float64" in expect(book)["oracle"]


def test_slices_follow_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oracle, "available_bytes", lambda device: 1000)
    cpu = torch.device("cpu")
    sizes = (1, 600, 601, 1801, 10**9)
    assert [oracle.slices_needed(n, 0, cpu, 8) for n in sizes] == [1, 1, 2, 4, 8]
    # What every slice needs leaves less to share; cutting is of no use where it leaves nothing.
    assert [oracle.slices_needed(600, n, cpu, 8) for n in (0, 300, 500, 600)] == [1, 2, 6, 1]


def test_a_state_that_the_forward_wrote_is_reset(
    make: Callable[[str], Book], tmp_path: Path
) -> None:
    book = make("self.linear.weight.data.mul_(2).sum() + self.linear(x)")
    first, second = expect(book), expect(book)
    assert first["changed"] == second["changed"] == ["state linear.weight"]
    assert answer(book, tmp_path, lambda y: y)["ok"] is False
    assert first["leaves"] == second["leaves"]
