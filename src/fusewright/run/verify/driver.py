"""The order of a verification: start both files, compare, try to break, ask what was proved.

Runs in the verifier's process, which never imports torch or a user's file.
"""

import contextlib
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from fusewright.errors import ProblemError, UsageError
from fusewright.options import PRECISIONS
from fusewright.run.verify import sanitize, specs, structure, values
from fusewright.run.verify.isolate import (
    Nursery,
    WorkerCrashed,
    WorkerFailure,
    WorkerHung,
    WorkerRaised,
)
from fusewright.run.verify.report import VerifyReport, conclude
from fusewright.run.verify.trial import Point, Progress, Settings, Stop, Trial

DEFAULT_SEEDS = 3
DEFAULT_TIMEOUT_S = 300.0
_ROOMY_SHM = 48 << 30


def verify(
    reference: str | Path,
    candidate: str | Path,
    *,
    device: str = "auto",
    precision: str = "match",
    seeds: int = DEFAULT_SEEDS,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    limit_s: float = math.inf,
    sanitize: bool = False,
    progress: Progress | None = None,
    nursery: Nursery | None = None,
) -> VerifyReport:
    """Whether `candidate`'s ModelNew can stand in for `reference`'s Model, and why not.

    device: "auto" (CUDA where there is one), "cpu" or "cuda". precision: what arithmetic a kernel
    may use (options.Precision). seeds: how many times the given inputs are drawn. timeout_s: time
    limit of any single step, such as one call or one import with its build. limit_s: after so long
    no further check is begun, and the verdict stays open. sanitize: on CUDA, also make one call
    under each tool of compute-sanitizer. nursery: started processes to use again, as a test suite
    does.

    Raises ProblemError when a file is missing or the reference itself cannot be run, UsageError for
    an option without meaning. Whatever the candidate does is a verdict, never an exception.
    """
    settings = _settings(reference, candidate, device, precision, seeds, timeout_s)
    settings = replace(settings, sanitize=sanitize, limit_s=limit_s)
    with _started(settings, progress or (lambda _: None), nursery) as trial:
        with contextlib.suppress(Stop):
            run_checks(trial)
        return _report(trial, time.monotonic() - trial.started)


def _settings(
    reference: str | Path,
    candidate: str | Path,
    device: str,
    precision: str,
    seeds: int,
    timeout_s: float,
) -> Settings:
    for path in (reference, candidate):
        if not Path(path).is_file():
            raise ProblemError(f"{path}: no such file")
    if precision not in PRECISIONS:
        raise UsageError(f"precision {precision!r} is not one of {', '.join(PRECISIONS)}")
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"device {device!r} is not one of auto, cpu, cuda")
    if seeds < 1 or timeout_s <= 0:
        raise UsageError("seeds must be at least 1 and timeout_s above 0")
    paths = (Path(reference).resolve(), Path(candidate).resolve())
    return Settings(*paths, device, precision, seeds, timeout_s)


@contextlib.contextmanager
def _started(settings: Settings, progress: Progress, nursery: Nursery | None) -> Iterator[Trial]:
    """A trial with both workers running, in a folder that is removed afterwards."""
    with contextlib.ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="fusewright-", dir=scratch_root()))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        for owner in ("referee", "candidate", "extensions"):
            (folder / owner).mkdir()
        nest = nursery or stack.enter_context(Nursery(folder))
        referee, candidate = nest.spawn("referee"), nest.spawn("candidate")
        trial = Trial(settings, nest, folder, referee, candidate, progress)
        stack.callback(lambda: [w.close() for w in (trial.referee, trial.candidate)])
        yield trial


def scratch_root() -> str | None:
    """Where tensors are exchanged: shared memory on a machine with plenty of it, else the temporary
    folder, whose cache the system can give up when a large problem needs the memory."""
    shm = Path("/dev/shm")
    if shm.is_dir() and shutil.disk_usage(shm).free > _ROOMY_SHM:
        return str(shm)
    return None


def run_checks(trial: Trial) -> None:
    """Every check in order. Raises Stop when the rest has no meaning."""
    phases: list[tuple[str, Callable[[Trial], None]]] = [
        ("start the reference", start_reference),
        ("start the candidate", start_candidate),
        ("compare as given", first_call),
        ("other weights and storage", structure.robust_checks),
        ("other inputs", values.distribution_checks),
        ("what the checks can tell", values.power_checks),
        ("awkward calls", structure.awkward_checks),
    ]
    if trial.settings.sanitize:
        phases.append(("sanitize", sanitize.sanitizer_checks))
    for name, phase in phases:
        trial.progress(name)
        if trial.overdue():
            trial.leave_open(name, f"no time was left of {trial.settings.limit_s:g} s")
            return
        guarded(trial, name, phase)


def guarded(trial: Trial, name: str, phase: Callable[[Trial], None]) -> None:
    """Run a phase; a candidate that crashes, hangs or raises in it fails the check `name`."""
    before = len(trial.checks)
    try:
        phase(trial)
    except WorkerFailure as failure:
        if isinstance(failure, WorkerRaised) and failure.out_of_memory:
            trial.leave_open(name, structure.brief(failure))
        elif failure.role == "referee":
            trial.undecided.append(name)
            trial.add("reference", "warn", f"{name}: the reference fails: {failure}")
        else:
            trial.add(failing_name(failure), "fail", f"{name}: {failure}")
        raise Stop from failure
    if any(check.outcome == "fail" for check in trial.checks[before:]):
        raise Stop


def failing_name(failure: WorkerFailure) -> str:
    kinds = {WorkerCrashed: "crash", WorkerHung: "hang"}
    return kinds.get(type(failure), "forward")


def start_reference(trial: Trial) -> None:
    """Import and build the reference. Raises ProblemError with its own words when it fails."""
    s = trial.settings
    try:
        trial.inputs_device = device = resolve_device(trial, s.device)
        trial.ask_referee("load", path=str(s.reference), cls="Model", device=device, poison=False)
        trial.ask_referee("set_precision", precision=s.precision)
        try_to_lend(trial, device)
        trial.init = trial.ask_referee("init_arguments", prefix=trial.path("referee"))
        made = construct_reference(trial, device)
        trial.training, trial.hidden = made["training"], made["hidden"]
        trial.draw_weights("given", "given", 0)
        trial.draw_inputs("given-0", "given", 0)
    except WorkerFailure as failure:
        raise ProblemError(f"the reference {s.reference} does not run: {failure}") from failure


def construct_reference(trial: Trial, device: str) -> dict[str, Any]:
    """On the device, or on the CPU where the constructor does not work so; and so the candidate."""
    arguments = {"slot": "reference", "init": trial.init}
    if device != "cpu":
        with contextlib.suppress(WorkerRaised):
            made = trial.ask_referee("construct", where=device, **arguments)
            trial.construct_on = device
            return made
    return trial.ask_referee("construct", where="cpu", **arguments)


def try_to_lend(trial: Trial, device: str) -> None:
    """Hand large tensors over without a copy, if the workers can see each other's device memory."""
    probe = trial.ask_referee("offer", device=device)
    if probe is not None and not trial.ask("accept", spec=probe):
        trial.ask_referee("lend")


def resolve_device(trial: Trial, device: str) -> str:
    if device != "auto":
        return device
    return trial.ask_referee("default_device")


def start_candidate(trial: Trial) -> None:
    """Import and build the candidate; compare what its constructor made."""
    s = trial.settings
    try:
        where = {"device": trial.inputs_device, "poison": True}
        trial.ask("load", path=str(s.candidate), cls="ModelNew", **where)
    except WorkerRaised as failure:
        trial.add("import", "fail", str(failure))
        return
    trial.add("import", "pass", "defines ModelNew")
    try:
        trial.construct("main")
    except WorkerRaised as failure:
        if failure.out_of_memory:
            raise
        trial.add("construct", "fail", f"ModelNew(*get_init_inputs()) raised {failure}")
        return
    spec = trial.ask("state", slot="main", prefix=trial.path("candidate"))
    differences = trial.ask_referee("compare_state", spec=spec)
    trial.discard(spec)
    trial.add("state-dict", *told(differences, f"{len(spec['items'])} entries, equal"))


def told(differences: list[str], good: str) -> tuple[Any, str]:
    """(outcome, detail) of a list of complaints."""
    if not differences:
        return "pass", good
    more = f"; and {len(differences) - 5} more" if len(differences) > 5 else ""
    return "fail", "; ".join(differences[:5]) + more


def first_call(trial: Trial) -> None:
    """The modules as constructed, on the inputs as given: values, structure and side effects."""
    point = Point("given", "given-0", trial.training)
    state = trial.ask_referee("weights", name=point.weights)
    report = trial.call("main", point.inputs, seed=point.seed, state=state, settle=True)
    trial.loaded["main"] = "changed"
    expected = trial.expect(point)
    differences = specs.structure_differences(expected["output"], report["output"])
    trial.add("structure", *told(differences, specs.describe(report["output"])))
    if differences:
        return
    structure.check_layout(trial, expected["output"], report["output"])
    structure.check_aliases(trial, expected["aliases"], report["aliases"])
    late = [f"output{path} still changed after the call returned" for path in report["unsettled"]]
    trial.add("late-work", *told(late, "outputs are final when the call returns"))
    values.judge_first_call(trial, point, report)
    values.note_cost(trial, point, report)
    structure.check_isolation(trial)
    trial.release(point)


def _report(trial: Trial, seconds: float) -> VerifyReport:
    checks = tuple(trial.checks)
    verdict = conclude(checks, tuple(trial.undecided))
    return VerifyReport(verdict, checks, values.summary(trial), values.accuracy(trial), seconds)
