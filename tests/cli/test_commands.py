"""The commands as a whole: what is printed where, exit codes, and what a run costs."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fusewright.cli import measuring
from fusewright.cli.console import _PlainProgress
from fusewright.run.verify.report import Check, ErrorSummary, VerifyReport

from .conftest import Run

ROOT = Path(__file__).parents[2]


def python(code: str, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), **variables},
    )


# ---------------------------------------------------------------------------------------- start-up


def test_help_loads_nothing_heavy_and_answers_at_once():
    code = (
        "import sys\nfrom fusewright.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n"
        "    heavy = [m for m in ('torch', 'numpy', 'rich', 'asyncio') if m in sys.modules]\n"
        "    print('heavy:', heavy)\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = python(code, "--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert found.stdout.endswith("heavy: []\n") and "optimize" in found.stdout
    # Processor time: the wall clock of a busy machine says nothing.
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < 0.3


def test_the_module_is_the_command():
    found = subprocess.run(
        [sys.executable, "-m", "fusewright", "--version"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    assert found.returncode == 0 and found.stdout.startswith("fusewright ")


FULL_SCALE = """
import json, resource, sys, time
import torch
from fusewright.cli import main

for name in ("matmul_sigmoid_sum", "sigmoid"):
    start = time.process_time()
    words = [f"{sys.argv[1]}/{name}.py", "-o", f"{sys.argv[2]}/{name}.py", "--target", "cuda"]
    assert main(["optimize", *words, "--no-check"]) == 0
    assert main(["explain", words[0], "--target", "cpu"]) == 0
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print("MEASURED", json.dumps([seconds, peak]))
"""


def test_the_largest_examples_cost_seconds_and_little_memory(tmp_path: Path):
    """Weights of 4.3 GB and inputs of 6.4 GB are never made."""
    found = python(
        FULL_SCALE, str(ROOT / "examples"), str(tmp_path), FUSEWRIGHT_EXAMPLE_SCALE="full"
    )
    assert found.returncode == 0, found.stderr
    lines = [x.split(" ", 1)[1] for x in found.stdout.splitlines() if x.startswith("MEASURED")]
    assert len(lines) == 2
    for seconds, peak in map(json.loads, lines):
        # Twice through the pipeline; the first time includes torch.export's own imports.
        assert seconds < 12 and peak < 2e9


# ---------------------------------------------------------------------------------------- optimize


def test_optimize_writes_verifies_and_times(run: Run, problem: Path, tmp_path: Path):
    out = tmp_path / "new.py"
    outcome = run("optimize", problem, "-o", out, "--target", "cpu", "--json")
    assert outcome.code == 0, outcome.out + outcome.err
    found = outcome.json
    assert found["output"] == str(out) and out.exists()
    assert found["verify"]["verdict"] == "accept"
    assert found["bench"]["times_ms"]["candidate"] > 0 and found["not_checked"] is None
    assert "small: capturing the forward pass" in outcome.err
    assert "verify: compare as given" in outcome.err


def test_optimize_tells_a_person(run: Run, problem: Path, tmp_path: Path):
    out = tmp_path / "new.py"
    outcome = run("optimize", problem, "-o", out, "--target", "cpu", "--no-check")
    assert outcome.code == 0
    assert "Σ_j Σ_k a[i,k]·b[k,j] = Σ_k a[i,k]·(Σ_j b[k,j])" in outcome.out
    assert f"written: {out}" in outcome.out.replace("\n", "")
    assert "verified" not in outcome.out


def test_a_rejected_file_stays_and_the_exit_code_says_so(
    run: Run, problem: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("fusewright.cli.checks.verify", lambda *_, **__: report("reject"))
    out = tmp_path / "new.py"
    outcome = run("optimize", problem, "-o", out, "--target", "cpu")
    assert outcome.code == 1 and out.exists()
    assert "verified: reject" in outcome.out and "wrong by 3" in outcome.out
    assert "not timed, because it was rejected" in outcome.out


def test_a_check_that_does_not_fit_is_left_out(
    run: Run, problem: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("fusewright.cli.checks.host_memory", lambda: 1000)
    outcome = run("optimize", problem, "-o", tmp_path / "new.py", "--target", "cpu", "--json")
    assert outcome.code == 0 and outcome.json["verify"] is None
    # x 8x16, weight 24x16, out 8, all float32, four times.
    assert outcome.json["not_checked"].startswith("not checked: that needs about 8.32 kB of memory")


# ------------------------------------------------------------------------------------ verify, bench


def report(verdict: Any) -> VerifyReport:
    outcome = "fail" if verdict == "reject" else "pass"
    return VerifyReport(
        verdict, (Check("values", outcome, "wrong by 3"),), ErrorSummary(1e-7, 2e-7)
    )


@pytest.mark.parametrize(("verdict", "code"), [("accept", 0), ("reject", 1), ("inconclusive", 2)])
def test_exit_codes_of_verify(run: Run, monkeypatch: pytest.MonkeyPatch, verdict: str, code: int):
    asked: dict[str, Any] = {}

    def verify(reference: Path, candidate: Path, **options: Any) -> VerifyReport:
        asked.update(options, files=(reference.name, candidate.name))
        options["progress"]("looking")
        return report(verdict)

    monkeypatch.setattr(measuring, "run_verify", verify)
    plain = run("verify", "a.py", "b.py", "--device", "cpu", "--precision", "tf32", "--seeds", "5")
    assert plain.code == code and verdict in plain.out
    assert (asked["files"], asked["device"], asked["precision"], asked["seeds"]) == (
        ("a.py", "b.py"), "cpu", "tf32", 5,
    )  # fmt: skip
    assert plain.err == "verify: looking\n"
    told = run("verify", "a.py", "b.py", "--json")
    assert told.code == code and told.json["verdict"] == verdict


def test_bench_knows_the_floor_of_the_reference(
    run: Run, problem: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: dict[str, Any] = {}

    def bench(reference: Path, candidate: Path, **options: Any) -> Any:
        asked.update(options)
        return SimpleNamespace(rejected=True, to_json=lambda: {"verdict": "invalid"})

    monkeypatch.setattr(measuring, "run_bench", bench)
    outcome = run(
        "bench", problem, problem, "--device", "cpu", "--baselines", "eager, compile-max", "--json"
    )
    assert outcome.code == 1 and outcome.json == {"verdict": "invalid"}
    assert asked["baselines"] == ["eager", "compile-max"]
    assert asked["floor"]["optimized"]["bytes"] > 0 and asked["floor"]["target"] == "cpu"


def test_bench_goes_on_without_a_floor(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        measuring,
        "run_bench",
        lambda *_, **options: SimpleNamespace(
            rejected=False, to_json=lambda: {"floor": options["floor"]}
        ),
    )
    outcome = run("bench", tmp_path / "a.py", tmp_path / "b.py", "--device", "cpu", "--json")
    assert outcome.code == 0 and outcome.json == {"floor": None}
    assert "no floor: " in outcome.err and "a.py" in outcome.err


# ---------------------------------------------------------------------------------- suite, doctor


def test_a_suite_optimises_every_problem(
    run: Run, problem: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("fusewright.cli.suite.run_verify", lambda *_, **__: report("accept"))
    broken = tmp_path / "broken.py"
    broken.write_text("class Model:\n    pass\n")
    out = tmp_path / "out"
    words = ["--target", "cpu", "--out", out, "--no-bench", "--json", "--numerics", "exact"]
    outcome = run("suite", problem, broken, *words)
    assert outcome.code == 1
    found = {r["problem"]: r for r in outcome.json["results"]}
    assert found["small"]["status"] == "ok" and found["small"]["verdict"] == "accept"
    assert "is not a torch.nn.Module" in found["broken"]["error"]
    assert "--numerics exact" in (out / "files" / "small.py").read_text()


def test_doctor_tells_what_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch):
    healthy = SimpleNamespace(healthy=True, to_json=lambda: {"healthy": True})
    monkeypatch.setattr(measuring, "run_doctor", lambda: healthy)
    assert run("doctor", "--json").json == {"healthy": True}
    monkeypatch.setattr(measuring, "run_doctor", lambda: SimpleNamespace(healthy=False))
    monkeypatch.setattr(measuring, "render_doctor", lambda _: "something is missing")
    outcome = run("doctor")
    assert outcome.code == 1 and "something is missing" in outcome.out


# ----------------------------------------------------------------------------------------- console


def test_a_log_has_each_step_once(capsys: pytest.CaptureFixture[str]):
    tell = _PlainProgress("bench")
    for number in range(3):
        tell(f"round {number + 1}", number / 3)
    tell("batch-1")
    tell("batch-7")
    lines = ["bench: round 1", "bench: batch-1", "bench: batch-7"]
    assert capsys.readouterr().err.splitlines() == lines


def test_a_defect_is_told_from_a_mistake(run: Run, problem: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("in the scheduler")

    monkeypatch.setattr("fusewright.cli.compiling.compile_problem", broken)
    outcome = run("explain", problem, "--json")
    assert outcome.code == 4
    assert "Traceback" in outcome.err and "this is a defect of fusewright" in outcome.err
    assert outcome.json == {"error": "ZeroDivisionError: in the scheduler"}
