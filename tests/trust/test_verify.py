"""`verify` as a whole: verdicts that need a file of their own, errors, report, isolation."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console

from fusewright.errors import ProblemError, UsageError
from fusewright.run.verify import (
    Check,
    ErrorSummary,
    Nursery,
    VerifyReport,
    referee,
    render_verify,
    runner,
    tensors,
    values,
    verify,
)
from fusewright.run.verify.book import Book
from fusewright.run.verify.isolate import Worker, WorkerCrashed, WorkerHung, WorkerRaised
from fusewright.run.verify.sanitize import read_log

REFERENCE = """
import torch
from torch import nn
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(12, 10{dtype})
    def forward(self, x):
        return {body}
def get_inputs():
    return [torch.rand(6, 12{dtype})]
"""
Run = Callable[..., VerifyReport]


@pytest.fixture
def run(tmp_path: Path, nursery: Nursery) -> Run:
    """Verify a candidate whose forward is `new` against a reference whose forward is `old`."""

    def run_one(old: str, new: str, dtype: str = "", **options: object) -> VerifyReport:
        reference, candidate = tmp_path / "reference.py", tmp_path / "candidate.py"
        filled = REFERENCE.replace("{dtype}", dtype and f", dtype=torch.{dtype}")
        reference.write_text(filled.replace("{body}", old))
        text = filled.replace("{body}", new).replace("class Model(", "class ModelNew(")
        candidate.write_text(text)
        chosen = {"device": "cpu", "nursery": nursery} | options
        return verify(reference, candidate, **chosen)  # type: ignore[arg-type]

    return run_one


def outcome(report: VerifyReport, name: str) -> str:
    return next(check.outcome for check in report.checks if check.name == name)


def test_report_of_an_equal_file(run: Run) -> None:
    report = run("self.linear(x)", "self.linear(x)")
    assert (report.verdict, report.exit_code) == ("accept", 0)
    found = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert sorted(found) == ["checks", "error", "verdict"]
    assert all(sorted(check) == ["detail", "name", "outcome"] for check in found["checks"])
    assert sorted(found["error"]) == ["candidate", "minimum_detectable", "reference"]
    assert 0 < found["error"]["reference"] <= found["error"]["minimum_detectable"] <= 5e-7
    assert {"values/given", "state-dict", "power", "isolation"} <= {
        check["name"] for check in found["checks"]
    }


def test_a_wrong_file_names_the_check_and_how_to_see_it_again(run: Run) -> None:
    report = run("self.linear(x)", "self.linear(x) * (1 + 1e-5)")
    assert report.exit_code == 1
    failed = next(check for check in report.failed() if check.name == "values/given")
    assert "relative L2 error 1e-05" in failed.detail
    assert "replay" in failed.reproduce and "--inputs given:0:1" in failed.reproduce
    console = Console(width=120, record=True, file=None, quiet=True)
    console.print(render_verify(report))


def test_replay_repeats_the_comparison(run: Run, tmp_path: Path) -> None:
    from fusewright.run.verify.replay import parse, replay

    run("self.linear(x)", "self.linear(x) * (1 + 1e-5)")
    files = [str(tmp_path / "reference.py"), str(tmp_path / "candidate.py")]
    words = [*files, "--inputs", "heavy:3:2", "--weights", "random:1"]
    (line,) = replay(parse(words), str(tmp_path))
    assert line.startswith("output: wrong: relative L2 error 1e-05")


def test_a_reference_that_ignores_its_input_cannot_be_tested(run: Run) -> None:
    report = run("torch.zeros_like(self.linear(x))", "torch.zeros_like(self.linear(x))")
    assert (report.verdict, report.exit_code) == ("inconclusive", 2)
    assert "zeros as output" in next(c.detail for c in report.checks if c.name == "power")


def test_other_handling_of_nan_is_a_warning(run: Run) -> None:
    report = run("torch.relu(x @ x.t())", "torch.where((y := x @ x.t()) > 0, y, 0.0)")
    assert (report.verdict, outcome(report, "special-values")) == ("accept", "warn")


# A library's kernel that only takes aligned pointers, as a GPU reports it.
FAULTS = """self.aligned(x) if x.data_ptr() % 16 == 0 else self.fault()
    def aligned(self, x): return self.linear(x)
    def fault(self): raise RuntimeError("CUDA error: misaligned address")"""


def test_a_device_fault_that_the_reference_has_as_well_is_no_rejection(run: Run) -> None:
    report = run(FAULTS, FAULTS)
    assert outcome(report, "misaligned") == "skip" and report.verdict == "accept"
    assert report.checks[-1].name == "misaligned"  # nothing can be asked of such a process


def test_a_device_fault_of_the_candidate_alone_is_one(run: Run) -> None:
    report = run("self.linear(x)", FAULTS)
    assert outcome(report, "misaligned") == "fail" and report.verdict == "reject"


def test_a_dead_parameter_is_no_hindrance(run: Run) -> None:
    old = "(y := self.linear(x)) - y.mean(0)"
    new = "(y := x @ self.linear.weight.t()) - y.mean(0) + 0 * self.linear.bias"
    report = run(old, new)
    assert report.verdict == "accept", [c for c in report.checks if c.outcome != "pass"]
    power = next(c.detail for c in report.checks if c.name == "power")
    assert "of no effect on any output: parameter linear.bias" in power


def test_a_term_below_the_precision_is_seen_or_the_verdict_is_open(run: Run) -> None:
    report = run("self.linear(x) * (1 + 2e-7 * torch.sigmoid(x.mean()))", "self.linear(x)")
    assert report.verdict == "inconclusive"
    assert "left out (differs by" in next(c.detail for c in report.checks if c.name == "power")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_other_dtypes(run: Run, dtype: str) -> None:
    same = "torch.nn.functional.gelu(self.linear(x))"
    other = "torch.nn.functional.gelu(x @ self.linear.weight.t() + self.linear.bias)"
    if dtype != "float64":
        # In float32 inside: nearer to float64 than the reference is.
        other = "torch.nn.functional.gelu(x.float() @ self.linear.weight.float().t()"
        other += " + self.linear.bias.float()).to(x.dtype)"
    report = run(same, other, dtype)
    assert report.verdict == "accept", [c for c in report.checks if c.outcome != "pass"]
    wrong = run(same, other.replace("gelu(", "relu(", 1), dtype)
    assert wrong.verdict == "reject"


@pytest.mark.parametrize("layout", ["to_sparse", "to_sparse_csr"])
def test_sparse_outputs_are_compared_in_layout_and_values(run: Run, layout: str) -> None:
    old = f"torch.relu(self.linear(x)).{layout}()"
    other = "torch.relu(x @ self.linear.weight.t() + self.linear.bias)"
    report = run(old, f"{other}.{layout}()")
    assert report.verdict == "accept", [c for c in report.checks if c.outcome != "pass"]
    assert run(old, f"({other} * 1.00001).{layout}()").verdict == "reject"
    assert outcome(run(old, f"{other}.to_sparse_csc()"), "structure") == "fail"


def iterated(step: str, times: int) -> str:
    """A map that doubles every error each time, of what the layer gives."""
    reduce = f"reduce(lambda y, _: {step}, range({times}), torch.sigmoid(self.linear(x)))"
    return f"__import__('functools').{reduce}"


@pytest.mark.parametrize(
    ("times", "step", "verdict"),
    [
        (20, "3.9 * (y - y * y)", "accept"),
        (20, "3.90001 * y * (1 - y)", "reject"),
        # Of the result no digit is left: whatever is returned, nothing can be told.
        (40, "3.9 * (y - y * y)", "inconclusive"),
        (40, "3.90001 * y * (1 - y)", "inconclusive"),
    ],
)
def test_where_rounding_alone_moves_the_result_no_right_file_is_rejected(
    run: Run, times: int, step: str, verdict: str
) -> None:
    report = run(iterated("3.9 * y * (1 - y)", times), iterated(step, times))
    assert report.verdict == verdict, [c for c in report.checks if c.outcome != "pass"]


def test_float64_is_not_judged_as_float32(run: Run) -> None:
    report = run("self.linear(x)", "self.linear(x).float().double()", "float64")
    assert report.verdict == "reject"


@pytest.mark.parametrize(
    ("precision", "verdict"),
    [("match", "reject"), ("ieee", "reject"), ("tf32", "reject"), ("bf16", "accept")],
)
def test_precision_allows_what_it_says(run: Run, precision: str, verdict: str) -> None:
    # bfloat16 operands with a float32 result, as a tensor core gives it.
    half = "x.bfloat16().float() @ self.linear.weight.bfloat16().float().t() + self.linear.bias"
    report = run("self.linear(x)", half, precision=precision)
    assert report.verdict == verdict, [c for c in report.checks if c.outcome != "pass"]


BATCH = REFERENCE.replace("torch.rand(6,", "torch.rand(128,").replace("{dtype}", "")


@pytest.mark.parametrize(
    ("new", "verdict"),
    [
        ("self.linear(x)", "accept"),
        # Right at the first call, whose rows are all looked at; wrong in the last row afterwards.
        (
            "torch.cat([self.linear(x)[:-1], self.linear(x)[-1:] * (1 + 1e-4 * seen(self))])",
            "reject",
        ),
        # In a tenth of the rows, after the first calls, for inputs that are compared in samples.
        ("self.linear(x) * (1 + 1e-4 * (x.mean() < 0 and x[:, :1] > x.mean() + 1))", "reject"),
    ],
    ids=["equal", "wrong later", "wrong in some rows"],
)
def test_a_large_problem_is_judged_on_a_sample_of_rows(
    nursery: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new: str, verdict: str
) -> None:
    monkeypatch.setattr(values, "LARGE_BYTES", 1000)
    reference, candidate = tmp_path / "large.py", tmp_path / "new.py"
    reference.write_text(BATCH.replace("{body}", "self.linear(x)"))
    counting = "def seen(m):\n    m.n = getattr(m, 'n', -1) + 1\n    return m.n\n"
    changed = BATCH.replace("{body}", new).replace("class Model(", counting + "class ModelNew(")
    candidate.write_text(changed)
    report = verify(reference, candidate, device="cpu", nursery=nursery)
    assert report.verdict == verdict, [c for c in report.checks if c.outcome != "pass"]
    if verdict == "accept":
        assert outcome(report, "power") == "pass"
        assert outcome(report, "batch-129") == "pass"


def test_the_sample_is_drawn_by_chance_and_stays_with_the_referee(
    tmp_path: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, dict[str, object]]] = []
    call = Worker.call

    def spy(self: Worker, command: str, timeout_s: float, **arguments: object) -> object:
        sent.append((self.role, arguments))
        return call(self, command, timeout_s, **arguments)

    monkeypatch.setattr(Worker, "call", spy)
    monkeypatch.setattr(values, "LARGE_BYTES", 1000)
    path = tmp_path / "large.py"
    path.write_text(BATCH.replace("{body}", "self.linear(x)") + "class ModelNew(Model): ...\n")
    assert verify(path, path, device="cpu", nursery=nursery).verdict == "accept"
    assert any(role == "referee" and said.get("sampled") for role, said in sent)
    assert not any(role == "candidate" and "sampled" in said for role, said in sent)

    book = Book(runner.Session(), draws={"x": tensors.dump([torch.rand(640, 2)], f"{tmp_path}/x")})
    samples = [referee.draw_sample(book, "x") for _ in range(2)]
    rows = [sample.rows.tolist() for sample in samples if sample]
    assert rows[0] != rows[1]
    assert all(
        40 <= len(r) <= 42 and r[0] == 0 and r[-1] == 639 and r == sorted(set(r)) for r in rows
    )


def test_a_missing_file_and_bad_options_are_errors(tmp_path: Path, run: Run) -> None:
    with pytest.raises(ProblemError, match="no such file"):
        verify(tmp_path / "a.py", tmp_path / "b.py")
    with pytest.raises(UsageError, match="precision 'fp8'"):
        run("x", "x", precision="fp8")
    with pytest.raises(UsageError, match="device 'tpu'"):
        run("x", "x", device="tpu")
    with pytest.raises(UsageError, match="seeds"):
        run("x", "x", seeds=0)


def test_a_reference_that_does_not_run_is_the_users_error(run: Run) -> None:
    with pytest.raises(ProblemError, match=r"reference\.py does not run"):
        run("x", "x", dtype="no_such_dtype")


def test_a_reference_whose_forward_raises_is_undecided(run: Run) -> None:
    report = run("x.no_such_method()", "self.linear(x)")
    assert report.verdict == "inconclusive"
    assert "no_such_method" in next(c.detail for c in report.checks if c.name == "reference")


def test_workers_that_raise_crash_and_hang(nursery: Nursery, tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    arguments = {"path": str(path), "cls": "Model", "device": "cpu", "poison": False}
    worker = nursery.spawn("candidate")
    with pytest.raises(WorkerCrashed, match="killed by SIGSEGV"):
        worker.call("load", 20.0, **arguments)
    path.write_text("import time\ntime.sleep(100)\n")
    with pytest.raises(WorkerHung, match=r"no answer within 0\.5 s"):
        nursery.spawn("candidate").call("load", 0.5, **arguments)
    path.write_text("raise ValueError('words')\n")
    worker = nursery.spawn("candidate")
    with pytest.raises(WorkerRaised, match="words") as raised:
        worker.call("load", 20.0, **arguments)
    assert raised.value.role == "candidate"
    worker.close()


def test_what_a_candidate_prints_does_not_reach_the_channel(run: Run) -> None:
    noisy = "(print('x' * 10000), __import__('os').write(1, b'{}'), self.linear(x))[-1]"
    assert run("self.linear(x)", noisy).verdict == "accept"


def test_a_failed_check_rejects_before_an_open_one() -> None:
    checks = (Check("a", "pass", ""), Check("b", "fail", "why", "how"), Check("c", "skip", ""))
    report = VerifyReport("reject", checks, ErrorSummary(1e-7, None, 5e-7), "", 1.0)
    assert report.failed() == (checks[1],)
    console = Console(width=100, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(render_verify(report))
    text = console.export_text()
    assert text.index("fail") < text.index("pass") and "how" in text and "reject" in text


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("========= ERROR SUMMARY: 0 errors", "pass"),
        ("========= Invalid __global__ read\n========= ERROR SUMMARY: 3 errors", "fail"),
        ("========= RACECHECK SUMMARY: 2 hazards displayed (2 errors, 0 warnings)", "fail"),
        ("========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)", "pass"),
        ("Segmentation fault", "warn"),
    ],
)
def test_what_the_sanitizer_prints(text: str, outcome: str) -> None:
    assert read_log(text, "memcheck")[0] == outcome


def test_sanitizing_on_a_cpu_is_skipped(run: Run) -> None:
    report = run("self.linear(x)", "self.linear(x)", sanitize=True)
    assert outcome(report, "sanitize/memcheck") == "skip"


@pytest.mark.parametrize(
    ("body", "coarse"),
    [
        ("self.linear(x).bfloat16().float() * 1.5", "TF32 arithmetic, bfloat16 arithmetic"),
        # TF32's two rounded operands may be a little worse than one rounded result of as many bits.
        ("self.linear(x).half().float() * 1.5", None),
        ("self.linear(x) * 1.5", ""),
    ],
    ids=["bfloat16", "float16", "float32"],
)
def test_a_precision_that_the_reference_has_not_is_not_asked_for(
    run: Run, body: str, coarse: str | None
) -> None:
    """A wide output may hold values of a narrower class, whatever rows and draws are seen."""
    report = run(body, body)
    assert report.verdict == "accept"
    power = next(c.detail for c in report.checks if c.name == "power")
    listed = power.partition("no coarser than the reference itself: ")[2].partition(";")[0]
    assert coarse in (None, listed)


def test_a_check_that_ran_out_of_memory_leaves_the_others_right(run: Run) -> None:
    """The first two calls in eval mode fail: whoever calls next must find training mode again."""
    old = "self.linear(x) * (2 if self.training else 3)"
    broken = "(_ for _ in ()).throw(torch.OutOfMemoryError('CUDA out of memory'))"
    counted = "vars(self).setdefault('calls', []).append(0) or len(self.calls) < 3"
    report = run(old, f"{broken} if not self.training and ({counted}) else {old}")
    (modes,) = (c for c in report.checks if c.name == "modes")
    assert (modes.outcome, report.verdict) == ("warn", "inconclusive"), report.checks
    assert not report.failed(), report.checks


def test_a_candidate_without_memory_is_not_rejected(run: Run) -> None:
    broken = "(_ for _ in ()).throw(torch.OutOfMemoryError('CUDA out of memory'))"
    report = run("self.linear(x)", broken)
    assert report.verdict == "inconclusive" and not report.failed(), report.checks


ROUNDED = "self.linear(x if x.is_contiguous() else x.half().float())"


def test_a_reference_that_errs_on_strided_inputs_excuses_the_same_error(run: Run):
    report = run(ROUNDED, ROUNDED)
    outcomes = {check.name: check.outcome for check in report.checks}
    assert report.verdict == "accept" and outcomes["non-contiguous"] == "warn"


def test_an_error_on_strided_inputs_that_the_reference_has_not_is_rejected(run: Run):
    report = run("self.linear(x)", ROUNDED)
    assert report.verdict == "reject"
    wrong = [check.name for check in report.checks if check.outcome == "fail"]
    assert wrong == ["non-contiguous", "padded-rows", "permuted"]


def test_a_candidate_without_memory_leaves_the_verdict_open(run: Run):
    short = "self.linear(x) if torch.is_grad_enabled() else exec('raise MemoryError')"
    report = run("self.linear(x)", short)
    assert report.verdict == "inconclusive"
    assert all(check.outcome != "fail" for check in report.checks)


def test_an_epsilon_below_the_references_own_error_leaves_nothing_open(run: Run):
    deep = "(self.linear(x).exp() + 3).log() + 6 - 6"
    norm = f"(lambda y: y * (y.square().mean(-1, keepdim=True) + 3e-7).rsqrt())({deep})"
    report = run(norm, norm)
    (power,) = [check for check in report.checks if check.name == "power"]
    assert report.verdict == "accept" and "(add) left out" in power.detail, (power, report.error)


def test_small_weights_tell_an_epsilon_apart(run: Run):
    norm = "(lambda y: y * (y.square().mean(-1, keepdim=True) + {}).rsqrt())(self.linear(x + 1))"
    report = run(norm.format("2e-7"), norm.format("0"))
    assert report.verdict == "reject", report.checks


RECORDS = """
from dataclasses import dataclass
from typing import NamedTuple
@dataclass
class Pair:
    x: torch.Tensor
    scale: float
class Batch(NamedTuple):
    pair: Pair
    y: torch.Tensor
def get_inputs():
    return [Batch(Pair(torch.rand(6, 12), 2.0), torch.rand(6, 10))]
"""
OPAQUE = """
class Bag:
    def __init__(self, x):
        self.x = x
def get_inputs():
    return [Bag(torch.rand(6, 12))]
"""


@pytest.mark.parametrize(("new", "verdict"), [("", "accept"), (" + 1e-3", "reject")])
def test_records_of_the_users_own_are_handed_over(
    tmp_path: Path, nursery: Nursery, new: str, verdict: str
):
    body = "self.linear(x.pair.x) * x.pair.scale + x.y"
    text = REFERENCE.replace("{dtype}", "").replace("{body}", body) + RECORDS
    reference, candidate = tmp_path / "reference.py", tmp_path / "candidate.py"
    reference.write_text(text)
    candidate.write_text(text.replace("class Model(", "class ModelNew(").replace(body, body + new))
    assert verify(reference, candidate, device="cpu", nursery=nursery).verdict == verdict


def test_an_input_that_cannot_be_handed_over_is_an_error(tmp_path: Path, nursery: Nursery):
    text = REFERENCE.replace("{dtype}", "").replace("{body}", "self.linear(x.x)") + OPAQUE
    reference, candidate = tmp_path / "reference.py", tmp_path / "candidate.py"
    reference.write_text(text)
    candidate.write_text(text.replace("class Model(", "class ModelNew("))
    with pytest.raises(ProblemError, match="is a Bag of its own"):
        verify(reference, candidate, device="cpu", nursery=nursery)


def test_an_empty_batch_as_given_breaks_no_check(tmp_path: Path, nursery: Nursery):
    text = REFERENCE.replace("{dtype}", "").replace("{body}", "self.linear(x), x.shape[0] + 1.5")
    text = text.replace("rand(6,", "rand(0,")
    reference, candidate = tmp_path / "reference.py", tmp_path / "candidate.py"
    reference.write_text(text)
    candidate.write_text(text.replace("class Model(", "class ModelNew("))
    report = verify(str(reference), str(candidate), device="cpu", nursery=nursery)
    skipped = [c for c in report.checks if c.outcome == "skip" and "reference itself" in c.detail]
    assert not report.failed() and not skipped, report.checks
