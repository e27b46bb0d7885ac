"""One verification under way: both workers, the files between them, and what was found so far.

The vocabulary that the checks are written in: draw inputs and weights, call the candidate, hold its
answer against the reference. Decides nothing by itself. Runs in the verifier's process; no torch.
"""

import itertools
import math
import shlex
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fusewright.run.verify import specs
from fusewright.run.verify.isolate import Nursery, Worker, WorkerRaised
from fusewright.run.verify.report import Check, Outcome
from fusewright.run.verify.specs import Spec

Progress = Callable[[str], None]
Finding = dict[str, Any]


class Stop(Exception):
    """The rest of the checks has no meaning; the reason is already among them."""


@dataclass(frozen=True, slots=True)
class Point:
    """What both modules are evaluated at: weights and inputs by name, mode and seed.

    whole: every row is judged, also where a sample of the batch would do. after: the inputs of the
    calls before this one, whose traces count.
    """

    weights: str
    inputs: str
    train: bool
    seed: int = 7
    whole: bool = False
    after: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        mode = "train" if self.train else "eval"
        return "/".join((*self.after, self.inputs, self.weights, mode, str(self.seed)))


@dataclass(frozen=True, slots=True)
class Settings:
    """What the caller of `verify` chose."""

    reference: Path
    candidate: Path
    device: str
    precision: str
    seeds: int
    timeout_s: float
    sanitize: bool = False
    limit_s: float = math.inf


@dataclass(slots=True)
class Trial:
    """Mutable: grows checks, draws and points as the verification proceeds."""

    settings: Settings
    nursery: Nursery
    folder: Path
    referee: Worker
    candidate: Worker
    progress: Progress
    init: Spec = field(default_factory=dict)
    inputs_device: str = "cpu"
    construct_on: str = "cpu"
    hidden: list[str] = field(default_factory=list)
    remembers: bool = False
    slow: bool = False
    slow_reference: bool = False
    fastest_s: float = math.inf
    sampling: bool = False
    training: bool = True
    other_stream: bool = False
    checks: list[Check] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)
    weights: dict[str, Spec] = field(default_factory=dict)
    inputs: dict[str, Spec] = field(default_factory=dict)
    recipes: dict[str, str] = field(default_factory=dict)
    points: dict[str, dict[str, Any]] = field(default_factory=dict)
    errors: list[Finding] = field(default_factory=list)
    nulls: dict[str, dict[str, Any]] = field(default_factory=dict)
    accuracy: str = ""
    loaded: dict[str, str] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    _numbers: Any = field(default_factory=itertools.count)

    def ask_referee(self, command: str, **arguments: Any) -> Any:
        return self.referee.call(command, self.settings.timeout_s, **arguments)

    def ask(self, command: str, **arguments: Any) -> Any:
        """A command to the candidate's worker."""
        return self.candidate.call(command, self.settings.timeout_s, **arguments)

    def path(self, owner: str) -> str:
        """A new file prefix in the folder of "referee" or "candidate"."""
        return str(self.folder / owner / str(next(self._numbers)))

    def add(self, name: str, outcome: Outcome, detail: str, reproduce: str = "") -> None:
        """A check; one that failed gets a command to repeat it, by default this verification."""
        command = reproduce or self.command() if outcome == "fail" else ""
        self.checks.append(Check(name, outcome, printable(detail), command))

    def command(self) -> str:
        """The command that repeats this verification."""
        s = self.settings
        parts = ["fusewright", "verify", str(s.reference), str(s.candidate), "--device", s.device]
        return shlex.join(parts)

    def replay_command(self, point: Point) -> str:
        """The command that repeats one comparison, in one process."""
        s, mode = self.settings, "train" if point.train else "eval"
        parts = ["python", "-m", "fusewright.run.verify.replay", str(s.reference), str(s.candidate)]
        parts += ["--inputs", self.recipes[point.inputs], "--weights", self.recipes[point.weights]]
        device = self.inputs_device
        return shlex.join([*parts, "--mode", mode, "--device", device])

    def draw_inputs(self, name: str, kind: str, seed: int, rows: int | None = None) -> Spec:
        """Inputs by the name that points refer to; drawn once."""
        if name not in self.inputs:
            self.recipes[name] = f"{kind}:{seed}" + ("" if rows is None else f":{rows}")
            self.inputs[name] = self.ask_referee(
                "draw_inputs",
                name=name,
                kind=kind,
                seed=seed,
                prefix=self.path("referee"),
                rows=rows,
            )
        return self.inputs[name]

    def draw_weights(self, name: str, kind: str, seed: int) -> Spec:
        if name not in self.weights:
            self.recipes[name] = f"{kind}:{seed}"
            self.weights[name] = self.ask_referee(
                "draw_weights", name=name, kind=kind, seed=seed, prefix=self.path("referee")
            )
        return self.weights[name]

    def construct(self, slot: str) -> dict[str, Any]:
        """A new candidate module, with the weights that its constructor gives it."""
        self.loaded[slot] = "given"
        where = {"where": self.construct_on, "beside": self.hidden}
        return self.ask("construct", slot=slot, init=self.init, **where)

    def set_weights(self, slot: str, weights: str, how: str = "load") -> None:
        self.loaded[slot] = weights
        spec = self.ask_referee("weights", name=weights)
        self.ask("load_state", slot=slot, spec=spec, how=how)

    def ensure_weights(self, slot: str, weights: str) -> None:
        if self.loaded.get(slot) != weights:
            self.set_weights(slot, weights)

    def put(self, inputs: str, layout: str) -> bool:
        """Hand the named inputs to the candidate; whether `layout` (of runner.put) changed them."""
        spec = self.ask_referee("inputs", name=inputs)
        return self.ask("put", name="x", spec=spec, layout=layout)["changed"]

    def call(self, slot: str, inputs: str, layout: str = "plain", **plan: Any) -> dict[str, Any]:
        """Hand the named inputs to the candidate and call its forward.

        `layout` is one of runner.put; "as-is" calls with what the last `put` left.
        """
        if layout != "as-is":
            self.put(inputs, layout)
        chosen = {"seed": 7, "prefix": self.path("candidate"), "drop": True} | plan
        report = self.ask("call", slot=slot, inputs="x", **chosen)
        self.fastest_s = min(self.fastest_s, report["seconds"])
        return report

    def expect(self, point: Point) -> dict[str, Any]:
        """The reference's report of a point; evaluated at first need.

        Of a large problem only a sample of the batch is evaluated. The referee draws it; it never
        leaves the referee's process, so a candidate, which computes all rows, cannot know it.
        """
        if point.name not in self.points:
            sampled = self.sampling and not point.whole
            self.points[point.name] = self.ask_referee(
                "expect",
                name=point.name,
                weights=point.weights,
                inputs=point.inputs,
                seed=point.seed,
                train=point.train,
                sampled=sampled,
                after=point.after,
            )
        return self.points[point.name]

    def judge(self, point: Point, report: dict[str, Any], confirm: bool = True) -> list[Finding]:
        """Findings for a call of the candidate that was made at `point`; removes its files.

        What is wrong in a sample is judged once more on all rows, which is what then counts, unless
        `confirm` is off.
        """
        found = self._judge(point, report)
        wrong = any(f["ok"] is not True for f in found)
        if confirm and wrong and self.expect(point)["sampled"]:
            self.release(point)
            found = self._judge(replace(point, whole=True), report)
        self.discard(report["output"], *(report.get("effects") or {}).values())
        return found

    def discard(self, *outputs: Spec) -> None:
        """Let go of what the candidate handed over."""
        remove_files(outputs)
        if keys := [key for output in outputs for key in specs.loans(output)]:
            self.ask("take_back", keys=keys)

    def _judge(self, point: Point, report: dict[str, Any]) -> list[Finding]:
        expected = self.expect(point)
        known = (expected["output"], report["output"])
        wrong = specs.structure_differences(*known, sampled=expected["sampled"])
        if wrong:
            return [failed("output", "; ".join(wrong))]
        arguments = {"output": report["output"], "effects": report.get("effects")}
        arguments["patient"] = self.patient()
        return self.ask_referee("judge_call", name=point.name, **arguments) + [
            failed(path, "was changed, but the reference leaves it as it is")
            for path in report.get("overwritten", ())
            if path not in expected["changed"]
        ]

    def evaluate(
        self, point: Point, slot: str = "main", confirm: bool = True, **plan: Any
    ) -> list[Finding]:
        """Call the candidate at a point, then evaluate the reference there and compare.

        Raises WorkerRaised: the reference's refusal, if both refuse.
        """
        self.ensure_weights(slot, point.weights)
        self.ask("train", slot=slot, mode=point.train)
        try:
            report = self.call(slot, point.inputs, seed=point.seed, **plan)
        except WorkerRaised:
            self.expect(point)
            raise
        found = self.judge(point, report, confirm)
        if self.expect(point)["changed"]:
            self.loaded[slot] = "changed"
        return found

    def release(self, point: Point) -> None:
        """Let the referee forget a point, so that memory does not grow with the checks."""
        if self.points.pop(point.name, None) is not None:
            self.ask_referee("release", name=point.name)

    def forget_inputs(self, name: str) -> None:
        """Remove the files of inputs that no further point uses."""
        self._forget(name, self.inputs.pop(name))

    def forget_weights(self, name: str) -> None:
        """As `forget_inputs`, for weights."""
        if name in self.weights:
            self._forget(name, self.weights.pop(name))

    def _forget(self, name: str, spec: Spec) -> None:
        remove_files([spec])
        self.ask_referee("forget_draw", name=name)

    def recover(self) -> None:
        """After a check that broke off, whose module may be in another mode, with other buffers."""
        self.loaded.clear()
        self.ask("recover", slot="main", mode=self.training)

    def make_room(self) -> None:
        """Let both workers drop what they can make again, as memory is short."""
        self.recover()
        self.ask_referee("make_room")

    def patient(self) -> bool:
        """Whether a judgement may take its time: where one check has failed, none can matter."""
        return all(check.outcome != "fail" for check in self.checks)

    def overdue(self) -> bool:
        """Whether the time for all checks is up: then no further one is begun."""
        return time.monotonic() - self.started > self.settings.limit_s

    def leave_open(self, name: str, why: str) -> None:
        """A check that could not be made, for no fault of either file."""
        self.undecided.append(name)
        self.add(name, "warn", f"cannot be told: {why}")

    def tell(self, name: str, findings: Iterable[Finding], reproduce: str = "") -> None:
        """Add a check from findings."""
        found = list(findings)
        wrong = [f for f in found if f["ok"] is False]
        unknown = [f for f in found if f["ok"] is None]
        if wrong:
            self.add(name, "fail", describe(wrong), reproduce)
        elif unknown:
            self.undecided.append(name)
            self.add(name, "warn", "cannot be told: " + describe(unknown))
        else:
            self.add(name, "pass", describe_best(found))


def failed(path: str, reason: str) -> Finding:
    """A finding of something that no error measures."""
    measures = {"norm": math.inf, "eager": 0.0, "bound": 0.0, "exact": False}
    return {"path": path, "ok": False, "reason": reason, **measures}


def printable(text: str) -> str:
    """The text without what moves a terminal's cursor or cannot be printed: it may be the user's
    file's."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def describe(findings: list[Finding], limit: int = 3) -> str:
    shown = [f"{f['path']}: {f['reason']}" for f in findings[:limit]]
    more = len(findings) - limit
    return "; ".join(shown) + (f"; and {more} more" if more > 0 else "")


def describe_best(findings: list[Finding]) -> str:
    """The largest error among findings that are all right."""
    if not findings:
        return "nothing to compare"
    worst = max(findings, key=lambda f: f["norm"] / f["bound"] if f["bound"] else 0.0)
    return worst["reason"]


def finite(value: float) -> bool:
    return math.isfinite(value)


def remove_files(outputs: Iterable[Spec]) -> None:
    for spec in outputs:
        for _, leaf in specs.tensors(spec):
            if "file" in leaf:
                Path(leaf["file"]).unlink(missing_ok=True)
