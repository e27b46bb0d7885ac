"""The benchmark on honest and dishonest candidates: what it measures, what it does not believe."""

import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fusewright.errors import UsageError
from fusewright.run.bench import BenchError, bench, clock, first_import, worker
from fusewright.run.bench.machine import pinned_threads
from fusewright.run.bench.report import BenchReport, build_report
from fusewright.run.bench.subject import Inputs, share_state
from run import bench_candidates as texts


@pytest.fixture(autouse=True)
def small_and_calm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread: tiny calls must not wait for a second core that other programs keep busy."""
    monkeypatch.setitem(clock.CEILING_BYTES, "cpu", 1 << 20)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def measure(folder: Path, candidate: str, reference: str = texts.REFERENCE, **spec: Any):
    """The worker's own work, in this process: saves the seconds that importing torch takes."""
    chosen: dict[str, Any] = {
        "reference": str(write(folder, "reference.py", reference)),
        "candidate": str(write(folder, "candidate.py", candidate)),
        "device": "cpu",
        "baselines": ["eager"],
        "rounds": 8,
        "seconds": 3.0,
        "seed": 0,
    }
    return build_report(worker.run(chosen | spec, lambda *_: None), None)


def names(report: BenchReport) -> set[str]:
    return {finding.name for finding in report.findings if finding.severity == "reject"}


def test_equal_file_is_indistinguishable(tmp_path: Path):
    report = measure(tmp_path, texts.REFERENCE, rounds=25)
    assert report.verdict == "indistinguishable" and report.findings == ()
    assert report.checks["compared"] >= 4 and report.checks["worst_relative_l2"] == 0.0


def test_sleeping_candidate_is_slower(tmp_path: Path):
    report = measure(tmp_path, texts.SLEEPING, rounds=5)
    candidate = report.time_ms("candidate")
    assert report.verdict == "slower" and candidate is not None and candidate.median >= 50


def test_candidate_with_less_work_is_faster(tmp_path: Path):
    reference = texts.enlarged(texts.REFERENCE)
    report = measure(tmp_path, texts.enlarged(texts.FASTER), reference=reference, rounds=15)
    assert report.verdict == "faster" and names(report) == set()


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        (texts.CACHED, "cached-result"),
        (texts.CACHED_BY_POINTER, "cached-result"),
        (texts.ZEROS, "wrong-result"),
        (texts.UNWRITTEN, "wrong-result"),
        (texts.STALE_FOLD, "wrong-result"),
        (texts.LAZY, "wrong-result"),
        (texts.MUTATES_INPUT, "input-mutated"),
        (texts.REUSES_OUTPUT, "output-reused"),
        (texts.THREAD, "threads"),
        (texts.THREAD, "wrong-result"),
        (texts.CHANGES_FLAGS, "global-flags"),
    ],
)
def test_dishonest_candidate_is_found_out(tmp_path: Path, text: str, finding: str):
    report = measure(tmp_path, text, rounds=6)
    assert finding in names(report) and report.verdict == "invalid"


def test_patched_clock_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import time

    monkeypatch.setattr(time, "perf_counter", time.perf_counter)  # restored after the test
    assert "patched" in names(measure(tmp_path, texts.PATCHES_CLOCK, rounds=2))


def test_what_is_patched_while_it_is_timed_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch, "allclose", torch.allclose)  # restored after the test
    assert "patched" in names(measure(tmp_path, texts.PATCHES_LATE, rounds=6))


def test_weights_under_other_names_are_noted_and_drawn_from_the_same_seed(tmp_path: Path):
    report = measure(tmp_path, texts.RENAMED_WEIGHTS)
    assert [(f.name, f.severity) for f in report.findings] == [("state-dict", "warn")]


def test_a_warning_of_the_candidate_is_passed_on(tmp_path: Path):
    report = measure(tmp_path, texts.WARNS, rounds=2)
    (finding,) = report.findings
    assert (finding.name, finding.severity) == ("candidate-warns", "warn")
    assert "running the reference" in finding.detail


def test_state_random_masks_and_written_inputs_are_no_reason_for_suspicion(tmp_path: Path):
    report = measure(tmp_path, texts.STATEFUL, reference=texts.STATEFUL)
    assert report.findings == ()


CENTRED = """
import torch


class Model(torch.nn.Module):
    def forward(self, x):
        return (x - x.mean()).mean(1)


def get_inputs():
    return [torch.rand(1, 4096)]
"""


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [("(x - x.mean()).flip(1).mean(1)", set()), ("x.sum(1)", {"wrong-result"})],
)
def test_a_result_that_is_rounding_errors_is_told_from_a_wrong_one(
    tmp_path: Path, answer: str, outcome: set[str]
):
    candidate = CENTRED.replace("(x - x.mean()).mean(1)", answer) + "\nModelNew = Model\n"
    report = measure(tmp_path, candidate, reference=CENTRED)
    assert names(report) == outcome
    assert ("undetermined" in {f.name for f in report.findings}) == (not outcome)


def draw(seed: int) -> list[torch.Tensor]:
    return [torch.full((4,), float(seed))]


def test_drawn_inputs_have_new_values_and_another_storage_each_round():
    inputs = Inputs(draw, seed=0, free_bytes=1 << 20)
    rounds = [inputs.advance()[0][0] for _ in range(3)]
    assert len({x.data_ptr() for x in rounds}) == 3 and len({float(x[0]) for x in rounds}) == 3


def test_inputs_that_are_slow_to_draw_trade_values_in_place(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fusewright.run.bench.subject.LONGEST_DRAW_S", 0.0)
    inputs = Inputs(draw, seed=0, free_bytes=1 << 20)
    inputs.prefer_swapping(0.0)
    assert inputs.refresh == "swapped"
    seen = [(x.data_ptr(), float(x[0])) for x in (inputs.advance()[0][0] for _ in range(4))]
    for (storage, value), (later_storage, later_value) in itertools.combinations(seen, 2):
        assert storage != later_storage or value != later_value
    assert all(a[0] != b[0] for a, b in itertools.pairwise(seen))


def test_inputs_that_fill_the_memory_are_drawn_one_set_at_a_time():
    inputs = Inputs(draw, seed=0, free_bytes=8)
    assert (inputs.refresh, inputs.count) == ("in place", 1)
    assert float(inputs.advance()[0][0][0]) != float(inputs.advance()[0][0][0])


def test_repeated_elements_get_new_values_in_the_same_storage():
    inputs = Inputs(
        lambda seed: [torch.tensor([float(seed)]).expand(3)], seed=0, free_bytes=1 << 20
    )
    before = inputs.advance()[0][0]
    after = inputs.rewritten()[0]
    assert after.data_ptr() == before.data_ptr() and after.stride() == (0,)
    assert torch.equal(after, torch.full((3,), float(inputs._seed)))
    inputs.refresh = "swapped"
    first = {float(inputs.advance()[0][0][0]) for _ in range(2)}
    assert len(first) == 2 and first == {float(inputs.advance()[0][0][0]) for _ in range(2)}


def test_candidate_shares_the_parameters_of_the_reference():
    reference, candidate = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
    assert share_state(reference, candidate) is None
    assert candidate.weight.data_ptr() == reference.weight.data_ptr()


def test_candidate_gets_the_mode_of_each_part_of_the_reference():
    reference, candidate = (
        torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4)) for _ in range(2)
    )
    reference[1].eval()
    assert share_state(reference, candidate) is None
    assert candidate.training and candidate[0].training and not candidate[1].training


def test_the_first_import_includes_the_kernels(tmp_path: Path):
    """An emitted file compiles them at its first call, by `_library()`."""
    file, output = tmp_path / "new.py", tmp_path / "seconds.json"
    file.write_text("import time\ndef _library():\n    time.sleep(0.2)\n")
    kept = os.dup(1)
    try:
        assert first_import.main([str(file), str(output)]) == 0
    finally:
        os.dup2(kept, 1)
        os.close(kept)
    assert json.loads(output.read_text())["import_s"] > 0.2


def test_threads_stay_where_they_are_while_a_cpu_is_timed():
    torch.ones(1 << 22).add_(1)  # torch's threads exist from now on
    cores = os.sched_getaffinity(0)
    threads = [int(task.name) for task in Path("/proc/self/task").iterdir()]
    with pinned_threads(torch.device("cpu")):
        bound = {thread: os.sched_getaffinity(thread) for thread in threads}
    assert all(len(where) == 1 and where <= cores for where in bound.values())
    assert bound[os.getpid()] == {min(cores)}
    assert all(os.sched_getaffinity(thread) == cores for thread in threads)
    with pinned_threads(torch.device("cuda")):
        assert os.sched_getaffinity(0) == cores


def test_raising_candidate_is_an_error_with_its_message(tmp_path: Path):
    with pytest.raises(Exception, match="no kernel for this device"):
        measure(tmp_path, texts.RAISES)


def run(folder: Path, candidate: str, **options: Any) -> BenchReport:
    """The whole benchmark, in processes of its own."""
    reference = write(folder, "reference.py", texts.REFERENCE)
    return bench(
        reference, write(folder, "candidate.py", candidate), device="cpu", rounds=3, **options
    )


def test_report_of_fresh_processes(tmp_path: Path):
    steps: list[tuple[str, float]] = []
    report = run(
        tmp_path,
        texts.NOISY_ON_STDOUT,
        baselines=("eager",),
        floor={"reference": {"bytes": 2e6}, "optimized": {"bytes": 1e6}},
        progress=lambda text, fraction: steps.append((text, fraction)),
    )
    found = json.loads(json.dumps(report.to_json()))
    assert set(found["times_ms"]) == {"eager", "eager-again", "candidate"}
    assert found["imports_s"]["first"] > 0 and found["imports_s"]["second"] > 0
    assert found["environment"]["torch"] == torch.__version__
    assert 0 < found["fraction_of_floor"] and found["floor"]["fusion"] == pytest.approx(2.0)
    assert steps[0][0] == "first import" and all(0 <= fraction <= 1 for _, fraction in steps)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (texts.CRASHES, {}, "crashed .signal 6"),
        (texts.HANGS, {"timeout": 4.0}, "did not end within 4 s"),
        ("import no_such_module\n", {}, "no_such_module"),
    ],
)
def test_broken_candidate_is_a_clear_error(tmp_path: Path, text: str, options: Any, message: str):
    with pytest.raises(BenchError, match=message):
        run(tmp_path, text, baselines=("eager",), imports=False, **options)


def test_bad_arguments_are_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="no such baseline: turbo"):
        run(tmp_path, texts.REFERENCE, baselines=("turbo",))
    with pytest.raises(UsageError, match="no such file"):
        bench(tmp_path / "missing.py", tmp_path / "missing.py")
