"""Tuning with a fake timer: what is measured, kept and used, and that plain runs ignore it."""

import json

import pytest

from fusewright.errors import OutputError
from fusewright.ir.kernel import Kernel, LibraryCall
from fusewright.options import Options
from fusewright.pipeline import Tuner, compile_problem
from fusewright.problem import load_problem
from fusewright.report import report
from fusewright.run.tune import add_to_table, measured, read_table
from fusewright.target.tuning import Choice, Tuning
from fusewright.version import VERSION

MODEL = """
import torch
import torch.nn as nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear({k}, {n})

    def forward(self, x):
        return torch.tanh(self.linear(torch.relu(x)))


def get_inputs():
    return [torch.rand({m}, {k})]


def get_init_inputs():
    return []
"""


@pytest.fixture
def problem(tmp_path):
    path = tmp_path / "model.py"
    path.write_text(MODEL.format(m=256, k=4096, n=512))
    return load_problem(path, fake=True)


class FakeTimer:
    """Times that make one way the fastest; remembers what it was asked."""

    def __init__(self, fastest):
        self.fastest, self.asked = fastest, []

    def __call__(self, runnables):
        self.asked.append(dict(runnables))
        return {name: 1e-6 if name == self.fastest else 2e-6 for name in runnables}


def compiled(problem, tmp_path, timer, **options):
    tuner = Tuner(tmp_path / "kept" / "table.json", timer, "Test GPU")
    return compile_problem(problem, Options("cuda:sm_90a", **options), tuner=tuner)


def product(compilation):
    return next(
        s
        for s in compilation.program.steps
        if isinstance(s, LibraryCall) or s.anchor == "contraction"
    )


@pytest.mark.parametrize("fastest", ["library", "split/1", "split/8"])
def test_the_fastest_way_is_taken_kept_and_named(problem, tmp_path, fastest):
    timer = FakeTimer(fastest)
    first = compiled(problem, tmp_path, timer, tune=True)
    (asked,) = timer.asked
    assert {"library", "split/1", fastest} <= set(asked)
    step = product(first)
    if fastest == "library":
        assert isinstance(step, LibraryCall)
    else:
        assert isinstance(step, Kernel) and step.tile.lanes == int(fastest.partition("/")[2])
    told = [w for w in report(first)["why_not"] if "measured on Test GPU" in w["reason"]]
    assert len(told) == 1 and fastest in told[0]["reason"].partition(",")[0]
    for option in ("tune", "tuned"):  # from the table, without a measurement
        again = compiled(problem, tmp_path, None, **{option: True})
        assert again.module_text == first.module_text
    assert "--tuned" in first.module_text


def test_every_way_is_a_program_that_runs_by_itself(problem, tmp_path):
    timer = FakeTimer("library")
    compiled(problem, tmp_path, timer, tune=True)
    (asked,) = timer.asked
    for name, runnable in asked.items():
        calls = [s for s in runnable.steps if isinstance(s, LibraryCall)]
        assert len(calls) == (name == "library")
        names = {x.name for x in runnable.program.buffers}
        entries = [s for s in runnable.steps if not isinstance(s, LibraryCall)]
        assert entries and all(set(buffers) <= names for _, buffers in entries)
        assert all(f"int {entry}(" in runnable.text for entry, _ in entries)
        assert "out" in names and runnable.arch == "sm_90a"
    assert len(asked["library"].steps) == 3  # relu, the product, tanh


def test_plain_compilations_do_not_read_the_table(problem, tmp_path):
    before = compiled(problem, tmp_path, None).module_text
    assert not (tmp_path / "kept").exists()
    compiled(problem, tmp_path, FakeTimer("library"), tune=True)
    assert compiled(problem, tmp_path, None).module_text == before


def test_without_the_device_the_model_chooses_and_a_warning_says_so(problem):
    plain = compile_problem(problem, Options("cpu"))
    found = compile_problem(problem, Options("cpu", tuned=True))
    assert any("no device for cpu" in w for w in found.warnings)
    assert found.program.steps == plain.program.steps and not plain.warnings


def test_only_what_is_missing_is_measured():
    known = Tuning("Test GPU", {"a": Choice({"library": 1.0})})
    timer = FakeTimer("split/2")
    found = measured(known, [("a", {}), ("b", {"library": None, "split/2": None})], timer)
    assert len(timer.asked) == 1 and found.choices["b"].best == "split/2"
    assert found.choices["a"] == known.choices["a"]


def test_the_table_keeps_devices_and_versions_apart(tmp_path):
    path = tmp_path / "deep" / "table.json"
    one = Tuning("One", {"a": Choice({"library": 1.0, "split/2": 0.5})})
    add_to_table(path, one, VERSION)
    add_to_table(path, Tuning("Two", {"b": Choice({"library": 1.0})}), VERSION)
    add_to_table(path, Tuning("One", {"c": Choice({"library": 2.0})}), VERSION)
    assert set(read_table(path, "One", VERSION).choices) == {"a", "c"}
    assert read_table(path, "One", VERSION).choices["a"].best == "split/2"
    assert not read_table(path, "One", "0.0.0").choices
    assert not read_table(path, "Three", VERSION).choices
    assert [p.name for p in path.parent.iterdir()] == ["table.json"]


@pytest.mark.parametrize("text", ["{", "[]", json.dumps({f"One, fusewright {VERSION}": {"a": 3}})])
def test_a_broken_table_is_named(tmp_path, text):
    path = tmp_path / "table.json"
    path.write_text(text)
    with pytest.raises(OutputError, match=r"table\.json"):
        read_table(path, "One", VERSION)


@pytest.mark.gpu
def test_products_are_timed_on_a_gpu(problem, tmp_path):
    tuner = Tuner(tmp_path / "table.json")
    found = compile_problem(problem, Options("auto", tune=True), tuner=tuner)
    (choice,) = found.context.log.entry("tuned").result.choices.values()
    assert all(0 < s < 1 for s in choice.seconds.values()) and len(choice.seconds) > 1
