"""The suite: one failure stays its own, what is done is kept, the tables say what happened."""

import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fusewright.errors import FusewrightError, OutputError, UsageError
from fusewright.run.process import python_command, watch
from fusewright.run.store import Store, digest
from fusewright.run.suite import Steps, problem_names, suite
from fusewright.run.suite_table import markdown_table

PROBLEM = "class Model:\n    pass\n"
EXPLAINED = {"optimized": {"kernels": [{}, {}], "extern_calls": []}}


def problems(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / "problems" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\n{PROBLEM}")
    return folder / "problems"


class Crew:
    """Counts the calls of each step; `broken` names problems whose step raises."""

    def __init__(self, broken: Mapping[str, str] | None = None) -> None:
        self.broken = broken or {}
        self.calls: list[tuple[str, str]] = []

    def _enter(self, step: str, problem: Path) -> None:
        self.calls.append((step, problem.stem))
        if self.broken.get(problem.stem) == step:
            raise FusewrightError(f"{step} crashed (signal 11)")

    def optimize(self, problem: Path, new: Path) -> dict[str, Any]:
        self._enter("optimize", problem)
        new.write_text("emitted")
        return EXPLAINED

    def build(self, problem: Path, new: Path) -> dict[str, Any]:
        self._enter("build", problem)
        return {}

    def verify(self, problem: Path, new: Path, place: int) -> dict[str, Any]:
        self._enter("verify", problem)
        return {"verdict": "reject" if problem.stem == "wrong" else "accept"}

    def measure(self, problem: Path, new: Path, explained: Mapping[str, Any]) -> dict[str, Any]:
        self._enter("bench", problem)
        return {
            "times_ms": {"eager": 2.0, "compile": 1.5, "candidate": 1.0},
            "speedup": {"eager": 2.0, "compile": 1.5},
            "best_baseline": "compile",
            "fraction_of_floor": 0.5,
            "findings": [],
        }

    def run(self, folder: Path, out: Path, jobs: int = 1, options: object = (), **steps: Any):
        chosen = {"verify": self.verify, "measure": self.measure} | steps
        return suite([folder], Steps(self.optimize, **chosen), out, jobs, options=options)


def test_one_failure_does_not_end_the_others(tmp_path: Path):
    folder = problems(tmp_path, "a", "b", "c", "wrong")
    steps = Crew({"a": "optimize", "b": "bench"})
    report = steps.run(folder, tmp_path / "out", jobs=2)
    found = {r["problem"]: r for r in report.results}
    assert list(found) == ["a", "b", "c", "wrong"]
    assert found["a"]["status"] == "optimize failed" and "signal 11" in found["a"]["error"]
    assert found["b"]["status"] == "bench failed"
    assert found["c"]["status"] == "ok" and found["c"]["speedup"] == {"eager": 2.0, "compile": 1.5}
    assert (found["c"]["kernels"], found["c"]["extern_calls"]) == (2, 0)
    assert found["wrong"]["verdict"] == "reject" and ("bench", "wrong") not in steps.calls
    assert report.summary["status"] == {"bench failed": 1, "ok": 2, "optimize failed": 1}
    assert report.summary["over_best_baseline"]["geometric_mean"] == pytest.approx(1.5)


def test_a_second_run_repeats_only_what_failed(tmp_path: Path):
    folder = problems(tmp_path, "a", "b")
    Crew({"a": "bench"}).run(folder, tmp_path / "out")
    again = Crew()
    report = again.run(folder, tmp_path / "out")
    assert again.calls == [("bench", "a")]
    assert all(r["status"] == "ok" for r in report.results)


def test_an_interrupted_run_is_resumed(tmp_path: Path):
    folder = problems(tmp_path, "a", "b")
    steps = Crew()

    def interrupted(problem: Path, new: Path, explained: Mapping[str, Any]) -> dict[str, Any]:
        if problem.stem == "b":
            raise KeyboardInterrupt
        return steps.measure(problem, new, explained)

    with pytest.raises(KeyboardInterrupt):
        steps.run(folder, tmp_path / "out", measure=interrupted)
    again = Crew()
    again.run(folder, tmp_path / "out")
    assert again.calls == [("bench", "b")]


def test_an_interrupted_run_writes_what_it_has_and_believes_nothing_after(tmp_path: Path):
    folder, steps, stopped = problems(tmp_path, "a", "b"), Crew(), threading.Event()

    def verify(problem: Path, new: Path, place: int) -> dict[str, Any]:
        if problem.stem == "a":
            raise KeyboardInterrupt
        assert stopped.wait(30)
        return {"verdict": "reject"}  # a killed process looks like one that crashed

    with pytest.raises(KeyboardInterrupt):
        steps.run(folder, tmp_path / "out", jobs=2, verify=verify, stop=stopped.set)
    written = json.loads((tmp_path / "out" / "results.json").read_text())["results"]
    assert [r["verdict"] for r in written] == [None, None]
    again = Crew()
    again.run(folder, tmp_path / "out")
    assert [c for c in again.calls if c[0] == "verify"] == [("verify", "a"), ("verify", "b")]


def test_a_doubtful_verdict_in_company_is_made_once_more_alone(tmp_path: Path):
    room, inside, most = 100 << 30, [0], {"company": 0, "alone": 0}
    calls: list[str] = []

    def verify(problem: Path, new: Path, place: int) -> dict[str, Any]:
        inside[0] += 1
        time.sleep(0.05)
        kind = "alone" if calls.count(problem.stem) else "company"
        most[kind] = max(most[kind], inside[0])
        calls.append(problem.stem)
        inside[0] -= 1
        return {"verdict": "inconclusive" if kind == "company" else "accept"}

    report = Crew().run(
        problems(tmp_path, *"abcd"), tmp_path / "out", jobs=4, verify=verify, rooms=[room]
    )
    assert report.summary["verdict"] == {"accept": 4}
    assert sorted(calls) == sorted("abcd" * 2)
    assert most["company"] > 1 and most["alone"] == 1


def test_builds_come_before_verdicts_and_warm_caches_before_benchmarks(tmp_path: Path):
    steps = Crew()

    def warm(problem: Path, new: Path, place: int) -> dict[str, Any]:
        steps.calls.append(("warm", problem.stem))
        return {"failed": "no compiler"}

    report = steps.run(problems(tmp_path, "a", "b"), tmp_path / "out", build=steps.build, warm=warm)
    order = ["optimize", "build"] * 2 + ["verify", "warm"] * 2 + ["bench"] * 2
    assert [step for step, _ in steps.calls] == order
    assert report.summary["status"] == {"ok": 2}


def test_other_timing_repeats_the_benchmarks_alone(tmp_path: Path):
    folder = problems(tmp_path, "a")
    for seconds in (1, 2):
        crew = Crew()
        steps = Steps(crew.optimize, verify=crew.verify, measure=crew.measure)
        suite([folder], steps, tmp_path / "out", timing=seconds)
    assert crew.calls == [("bench", "a")]


def test_changed_problem_changed_options_or_lost_file_are_done_anew(tmp_path: Path):
    folder = problems(tmp_path, "a")
    Crew().run(folder, tmp_path / "out")
    for change in ("problem", "options", "file"):
        if change == "problem":
            (folder / "a.py").write_text(f"# changed\n{PROBLEM}")
        elif change == "file":
            (tmp_path / "out" / "files" / "a.py").write_text("tampered with")
        steps = Crew()
        steps.run(folder, tmp_path / "out", options="o" if change != "problem" else ())
        assert ("optimize", "a") in steps.calls, change


def test_files_written(tmp_path: Path):
    report = Crew().run(problems(tmp_path, "a"), tmp_path / "out")
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == report.to_json()
    table = (tmp_path / "out" / "results.md").read_text()
    assert "| a | ok | accept | 2 | compile 1.5 | 1 | 2x | 1.5x | 0.5 | 2 | 0 |" in table
    assert table == markdown_table(report.results, report.summary)
    log = [json.loads(x) for x in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert [x["step"] for x in log] == ["optimize", "verify", "bench"]


def test_names_are_unique_and_short(tmp_path: Path):
    files = [tmp_path / "one" / "x.py", tmp_path / "two" / "x.py"]
    assert list(problem_names(files)) == ["one__x", "two__x"]
    assert list(problem_names(files[:1])) == ["x"]


def test_bad_arguments_are_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="no such file"):
        Crew().run(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(UsageError, match="no problem files"):
        Crew().run(tmp_path, tmp_path / "out")
    (tmp_path / "blocked").write_text("")
    with pytest.raises(OutputError, match="cannot be made"):
        Crew().run(problems(tmp_path, "a"), tmp_path / "blocked")


def test_a_crashing_command_is_told_from_an_error(tmp_path: Path):
    (tmp_path / "crash.py").write_text("import os\ndef main(a): os.abort()\n")
    command = python_command("crash", [], {"PYTHONPATH": str(tmp_path)})
    assert watch(command, 30).describe() == "crashed (signal 6)"
    (tmp_path / "hang.py").write_text("import time\ndef main(a): time.sleep(60)\n")
    ended = watch(python_command("hang", [], {"PYTHONPATH": str(tmp_path)}), 1)
    assert ended.status is None and "did not end within 1 s" in ended.describe()


def test_store_keeps_records_by_kind_and_key(tmp_path: Path):
    store = Store(tmp_path / "sub" / "s.sqlite")
    store.put("bench", digest("a", 1), {"x": [1, None]})
    store.put("bench", digest("a", 1), {"x": 2})
    assert Store(tmp_path / "sub" / "s.sqlite").get("bench", digest("a", 1)) == {"x": 2}
    assert store.get("verify", digest("a", 1)) is None
    store.forget("bench", digest("a", 1))
    assert store.get("bench", digest("a", 1)) is None


def test_store_that_is_no_database_is_a_clear_error(tmp_path: Path):
    (tmp_path / "s.sqlite").write_text("not a database, but long enough to be taken for one" * 9)
    with pytest.raises(OutputError, match="delete it"):
        Store(tmp_path / "s.sqlite")
