"""The benchmark's own process: loads both files, times them in interleaved rounds, writes samples.

Run by `driver` as a fresh process with a specification on the command line. It judges nothing
about speed: samples, findings of the checks and facts of the machine go to a file, and the parent
makes the report. Progress goes to the original stdout as JSON lines; what the measured programs
print goes to stderr.
"""

import gc
import json
import os
import random
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import nn

from fusewright.errors import FusewrightError, ProblemError, UsageError
from fusewright.run.bench import check
from fusewright.run.bench.clock import Clock, clock_for, measure_ceilings
from fusewright.run.bench.machine import (
    Sensors,
    environment,
    pinned_threads,
    python_threads,
)
from fusewright.run.bench.report import CANDIDATE, EAGER, EAGER_AGAIN, Finding
from fusewright.run.bench.subject import (
    CANDIDATE_CLASSES,
    BufferState,
    Inputs,
    Subject,
    cloned,
    construct,
    drawer,
    init_inputs,
    load_subject,
    share_state,
)
from fusewright.run.device import free_memory
from fusewright.run.verify import guard

COMPILE_MODES = {
    "compile": {"compile": "default"},
    "compile-max": {
        "compile-max": "max-autotune",
        "compile-max-no-graphs": "max-autotune-no-cudagraphs",
    },
}
WARM_UPS = 3
SLOW_CALL_S = 2.0
FEWEST_ROUNDS = 5
# A result that is looked at again so much later must be the same.
LATE_S = 0.05


@dataclass(slots=True)
class Arm:
    """One program in the race."""

    name: str
    call: Callable[..., Any]
    buffers: BufferState
    status: str = "ok"
    first_call_s: float | None = None


@dataclass(slots=True)
class Race:
    """Everything that one benchmark holds while it runs."""

    clock: Clock
    inputs: Inputs
    arms: list[Arm]
    mutates_inputs: bool
    modes: tuple[str, ...]
    seed: int
    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    host_ms: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    findings: dict[str, Finding] = field(default_factory=dict)
    seen: set[tuple[int, ...]] = field(default_factory=set)
    outputs: list[Any] = field(default_factory=list)
    checked: int = 0
    check_s: float = 0.0
    worst: float = 0.0
    before: guard.Snapshot | None = None

    def find(self, name: str, severity: Any, detail: str) -> None:
        """Notes a finding; the first of each name is kept, it has the clearest cause."""
        self.findings.setdefault(name, Finding(name, severity, detail))


def main(arguments: list[str]) -> int:
    """Runs the specification in `arguments[0]` (JSON); writes its outcome to the file it names."""
    spec = json.loads(arguments[0])
    progress = _private_stdout()

    def tell(text: str, fraction: float = 0.0) -> None:
        progress.write(json.dumps({"text": text, "fraction": fraction}) + "\n")

    try:
        outcome = run(spec, tell)
    except FusewrightError as error:
        outcome = {"error": str(error)}
    partial = Path(spec["output"] + ".partial")
    partial.write_text(json.dumps(outcome))
    partial.rename(spec["output"])
    return 0


def _private_stdout() -> TextIO:
    """Keeps stdout for progress and sends everything that other code prints to stderr."""
    sys.stdout.flush()
    kept = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return kept


def race(spec: dict[str, Any]) -> dict[str, Any]:
    """`run` in a process that has measured before and will again: nothing is left behind."""
    try:
        return run(spec, lambda text, fraction=0.0: None)
    finally:
        _clear()


def preload() -> None:
    """Imports what every race on a GPU needs, in a process that others are forked from."""
    if torch.cuda.is_available():
        import_module("torch._inductor.compile_fx")


def _clear() -> None:
    torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def warm(spec: dict[str, Any]) -> dict[str, str]:
    """Makes the baselines of a specification compile, so that a later `race` finds them cached.

    Returns the reasons of those that fail, by name.
    """
    failures: dict[str, str] = {}
    device = _device(spec["device"])
    subject = load_subject(Path(spec["reference"]))
    with torch.no_grad():
        with torch.device(device):
            module = construct(subject, ("Model",), init_inputs(subject), spec["seed"])
        module.to(device)
        inputs = drawer(subject, device)(spec["seed"])
        for arm in _compiled(spec["baselines"], device, module, BufferState(module)):
            try:
                arm.call(*inputs)
            except Exception as error:  # not the problem's failure: the race goes on without it
                failures[arm.name] = f"{type(error).__name__}: {error}"[:500]
    return failures


def run(spec: dict[str, Any], tell: Callable[..., None]) -> dict[str, Any]:
    """Races the programs of a specification; returns what `report.build_report` judges."""
    device = _device(spec["device"])
    tell("loading")
    clock = clock_for(device)
    sensors = Sensors(device)
    sensors.sample(thorough=True)
    with torch.no_grad():
        ceilings = measure_ceilings(device, clock)
        race, second_import_s = _line_up(spec, device, clock, tell)
        with pinned_threads(device):
            _loop(race, spec, sensors, tell)
        _final_checks(race)
    sensors.sample(thorough=True)
    return {
        "reference": spec["reference"],
        "candidate": spec["candidate"],
        "modes": list(race.modes),
        "samples": race.samples,
        "host_ms": race.host_ms,
        "arms": [
            {"name": a.name, "status": a.status, "first_call_s": a.first_call_s} for a in race.arms
        ],
        "findings": [asdict(finding) for finding in race.findings.values()],
        "checks": {"compared": race.checked, "worst_relative_l2": race.worst}
        | {"inputs": race.inputs.refresh, "input_sets": race.inputs.count},
        "ceilings": ceilings,
        "imports": {"second": second_import_s},
        "sensors": sensors.summary(),
        "environment": environment(device, clock.cache_bytes),
    }


def _device(name: str) -> torch.device:
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
    try:
        device = torch.device(chosen)
    except RuntimeError as error:
        raise UsageError(f"--device {name!r}: {error}") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {name!r}: only cpu and cuda can be measured")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"--device {name}: torch sees no CUDA device on this machine")
    return device


def _line_up(
    spec: dict[str, Any], device: torch.device, clock: Clock, tell: Callable[..., None]
) -> tuple[Race, float]:
    """Loads both files, shares the state, warms all programs up; returns (race, import s)."""
    seed = spec["seed"]
    subject = load_subject(Path(spec["reference"]))
    if "get_inputs" not in subject.namespace:
        raise ProblemError(f"{subject.path}: no function `get_inputs`")
    with torch.device(device):
        reference = construct(subject, ("Model",), init_inputs(subject), seed)
    reference.to(device)
    inputs = Inputs(drawer(subject, device), seed, free_memory(device))
    eager_buffers = BufferState(reference)
    race = Race(clock, inputs, [], False, clock.modes, seed)
    race.arms.append(Arm(EAGER, reference, eager_buffers))
    _try_out(race, race.arms[0])

    tell("importing the candidate")
    candidate, import_s = _enter_candidate(race, spec, reference, subject, device)
    race.arms += [Arm(EAGER_AGAIN, reference, eager_buffers)]
    compiled = _compiled(spec["baselines"], device, reference, eager_buffers)
    for arm in (candidate, *compiled):
        tell(f"warming up {arm.name}")
        _warm_up(race, arm)
        race.arms.append(arm)
    return race, import_s


def _try_out(race: Race, arm: Arm) -> None:
    """First calls of the reference: does it write its inputs, its buffers, and is it slow?"""
    given, _ = race.inputs.advance()
    before = check.fingerprint(given)
    race.outputs = check.blueprint(_invoke(race, arm, given))
    race.mutates_inputs = check.fingerprint(given) != before
    arm.buffers.note_mutation()
    _warm_up(race, arm)
    seconds = _call_once(race, arm, race.inputs.advance()[0])
    race.inputs.prefer_swapping(3 * seconds)
    if seconds > SLOW_CALL_S:
        race.modes = race.modes[:1]


def _enter_candidate(
    race: Race, spec: dict[str, Any], reference: nn.Module, subject: Subject, device: torch.device
) -> tuple[Arm, float]:
    """Imports and builds the candidate, and looks at what that did to the process."""
    before = guard.take_snapshot(dict.fromkeys(type(m) for m in reference.modules()))
    race.before = before
    loaded = load_subject(Path(spec["candidate"]))
    with torch.device(device):
        init = init_inputs(loaded) or init_inputs(subject)
        module = construct(loaded, CANDIDATE_CLASSES, init, spec["seed"])
    module.to(device)
    race.arms[0].buffers.restore()
    if why := share_state(reference, module):
        race.find("state-dict", "warn", f"state differs, weights of the same seed are used: {why}")
    arm = Arm(CANDIDATE, module, BufferState(module))
    arm.buffers.mutated = race.arms[0].buffers.mutated
    _probe(race, arm)
    _look_around(race)
    if found := guard.foreign_threads(before):
        race.find("threads", "reject", f"the candidate leaves threads: {'; '.join(found[:5])}")
    return arm, loaded.import_s


def _look_around(race: Race) -> None:
    """Notes what was changed in the process since before the candidate's import."""
    assert race.before is not None
    if changed := guard.changed_flags(race.before):
        text = "the candidate changes global settings, baselines included: "
        race.find("global-flags", "reject", text + "; ".join(changed[:5]))
    if names := guard.patched(race.before):
        race.find("patched", "reject", "; ".join(names[:5]))


def _probe(race: Race, arm: Arm) -> None:
    """Two calls with different inputs: the first result must not change under the second call."""
    first_inputs, second_inputs = race.inputs.advance()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        first = _invoke(race, arm, first_inputs)
    if caught:
        # An emitted file whose guard refuses the inputs says so once and runs the reference.
        race.find("candidate-warns", "warn", str(caught[0].message))
    before = check.fingerprint(first)
    second = _invoke(race, arm, second_inputs)
    race.clock.wait()
    if check.overlaps(first, second) and check.fingerprint(first) != before:
        text = "the candidate returns the same memory again: a later call overwrites a result"
        race.find("output-reused", "reject", text)


def _compiled(
    baselines: list[str], device: torch.device, module: nn.Module, buffers: BufferState
) -> list[Arm]:
    arms = []
    for baseline in baselines:
        for name, mode in COMPILE_MODES.get(baseline, {}).items():
            if name.endswith("no-graphs") and device.type == "cpu":
                continue  # there are no graphs on a CPU: the same program twice
            compiled = torch.compile(module, mode=mode, dynamic=False)
            call = _stepping(compiled) if name == "compile-max" else compiled
            arms.append(Arm(name, call, buffers))
    return arms


def _stepping(compiled: Callable[..., Any]) -> Callable[..., Any]:
    """Tells CUDA-graph trees that the results of the last call are no longer needed."""

    def call(*inputs: Any) -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        return compiled(*inputs)

    return call


def _warm_up(race: Race, arm: Arm) -> None:
    """First call, timed, and a few more; a baseline that fails leaves the race with its reason."""
    try:
        first = _call_once(race, arm, race.inputs.advance()[0])
        again = _call_once(race, arm, race.inputs.advance()[0])
        for _ in range(WARM_UPS - 2 if again < SLOW_CALL_S else 0):
            _call_once(race, arm, race.inputs.advance()[0])
    except Exception as error:
        if arm.name in (EAGER, CANDIDATE):
            raise
        arm.status = f"failed: {type(error).__name__}: {str(error).strip()[:500]}"
        return
    arm.first_call_s = first


def _call_once(race: Race, arm: Arm, inputs: list[Any]) -> float:
    start = time.perf_counter()
    _invoke(race, arm, inputs)
    race.clock.wait()
    return time.perf_counter() - start


def _invoke(race: Race, arm: Arm, inputs: list[Any]) -> Any:
    arm.buffers.restore()
    torch.manual_seed(race.seed)
    try:
        return arm.call(*inputs)
    except Exception as error:
        if arm.name in (EAGER, CANDIDATE):
            text = f"{arm.name}: forward raised {type(error).__name__}: {error}"
            raise ProblemError(text) from error
        raise


def _loop(race: Race, spec: dict[str, Any], sensors: Sensors, tell: Callable[..., None]) -> None:
    """Rounds until the time is up: in each, every program once in every mode, in random order."""
    racing = [arm for arm in race.arms if arm.status == "ok"]
    race.samples = {mode: {arm.name: [] for arm in racing} for mode in race.modes}
    order = random.Random(race.seed)
    start, least = time.perf_counter(), min(FEWEST_ROUNDS, spec["rounds"])
    race.check_s = 0.0
    for number in range(spec["rounds"]):
        elapsed = time.perf_counter() - start
        if elapsed > spec["seconds"] and number >= least:
            break
        tell(f"round {number + 1}", max(number / spec["rounds"], elapsed / spec["seconds"]))
        for mode in race.modes:
            # Comparing may take as long as timing; beyond that only a random part is compared.
            affordable = elapsed - race.check_s
            checking = number < 2 or order.random() * race.check_s <= affordable
            _round(race, mode, order.sample(racing, len(racing)), checking)
        sensors.sample()


def _round(race: Race, mode: str, arms: list[Arm], checking: bool) -> None:
    """Every program once, on the same inputs; if `checking`, the candidate's work is compared."""
    given, other = race.inputs.advance()
    start = time.perf_counter()
    before = check.fingerprint(given) if checking else ()
    race.check_s += time.perf_counter() - start
    kept: dict[str, Any] = {}
    for arm in arms:
        inputs = cloned(given) if race.mutates_inputs else given
        result = _time_arm(race, mode, arm, inputs, other)
        if checking and arm.name in (EAGER, CANDIDATE):
            kept[arm.name] = (result, inputs) if race.mutates_inputs else result
        if checking and arm.name == CANDIDATE:
            _check_inputs(race, given, before)
        del result
    if checking:
        _judge(race, kept[CANDIDATE], kept[EAGER], given, f"{mode} round")


def _check_inputs(race: Race, given: list[Any], before: tuple[int, ...]) -> None:
    start = time.perf_counter()
    if check.fingerprint(given) != before:
        race.find("input-mutated", "reject", "the candidate writes into its inputs")
    race.check_s += time.perf_counter() - start


def _time_arm(race: Race, mode: str, arm: Arm, inputs: list[Any], other: list[Any]) -> Any:
    spare = cloned(other) if race.mutates_inputs else other

    def reset() -> None:
        arm.buffers.restore()
        torch.manual_seed(race.seed)

    def rehearse() -> None:
        arm.call(*spare)
        reset()

    check.poison(race.outputs)
    reset()
    threads = python_threads()
    timing = race.clock.time(mode, lambda: arm.call(*inputs), rehearse)
    if arm.name == CANDIDATE and python_threads() > threads:
        race.find("threads", "reject", "the candidate starts Python threads in forward")
    race.samples[mode][arm.name].append(timing.ms)
    if timing.host_ms is not None:
        race.host_ms.setdefault(mode, {}).setdefault(arm.name, []).append(timing.host_ms)
    return timing.result


def _judge(race: Race, result: Any, expected: Any, given: list[Any], where: str) -> None:
    """Compares a result of the candidate with the reference's on the same inputs, `given`."""
    start = time.perf_counter()
    outcome = check.compare(result, expected)
    race.checked += 1
    marks = check.fingerprint(result)
    if outcome.problem and _is_rounding(race, outcome, expected, given):
        text = "rounding the inputs moves the reference's own result as far: it tells nothing"
        race.find("undetermined", "warn", text)
    elif outcome.problem:
        if marks in race.seen:
            text = f"{where}: a result of an earlier call came back for new inputs"
            race.find("cached-result", "reject", text)
        race.find("wrong-result", "reject", f"{where}: {outcome.problem}")
    if outcome.coarse:
        text = (
            f"relative L2 difference {outcome.relative_l2:.2g}: `fusewright verify` tells whether"
        )
        race.find("low-precision", "warn", f"{text} that is the candidate's or the reference's")
    race.worst = max(race.worst, outcome.relative_l2)
    race.seen.add(marks)
    race.check_s += time.perf_counter() - start


def _is_rounding(race: Race, outcome: check.Comparison, expected: Any, given: list[Any]) -> bool:
    """Whether rounding the inputs moves the reference's own outputs as far: a mean that is zero,
    comparisons of what is nearly equal."""
    if race.mutates_inputs or not outcome.wrong or float("inf") in outcome.wrong.values():
        return False
    moved = check.compare(_invoke(race, race.arms[0], check.nudged(given)), expected).outputs
    return all(d <= check.ROUNDINGS * moved.get(path, 0.0) for path, d in outcome.wrong.items())


def _final_checks(race: Race) -> None:
    """After timing: new values in the storage of the last call, new values in new storage."""
    arms = {arm.name: arm for arm in race.arms}
    given, _ = race.inputs.advance()
    _invoke(race, arms[CANDIDATE], cloned(given) if race.mutates_inputs else given)
    for inputs, where in (
        (race.inputs.rewritten(), "new values in the same storage"),
        (race.inputs.advance()[0], "after timing"),
    ):
        pairs = []
        for name in (EAGER, CANDIDATE):
            own = cloned(inputs) if race.mutates_inputs else inputs
            result = _invoke(race, arms[name], own)
            pairs.append((result, own) if race.mutates_inputs else result)
        race.clock.wait()
        early = check.fingerprint(pairs[1])
        _judge(race, pairs[1], pairs[0], inputs, where)
        time.sleep(LATE_S)
        if check.fingerprint(pairs[1]) != early:
            race.find("late-work", "reject", f"{where}: a result changes after the call returned")
    _look_around(race)
