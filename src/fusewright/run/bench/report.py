"""What a benchmark found, as data: times, ratios, findings; made from raw samples. No clock."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from fusewright.run.bench.floor import Floor, beats_light, floor_of
from fusewright.run.bench.stats import Estimate, estimate, judge, noise_of, paired_ratio

# The same reference twice in every round: what their ratio differs from 1 by is the noise.
EAGER, EAGER_AGAIN, CANDIDATE = "eager", "eager-again", "candidate"
SUSPICIOUS_HOST_RATIO = 1.5
# Below this difference the host clock cannot tell: a wake-up of the waiting thread takes as long.
HOST_SLACK_MS = 0.03

Severity = Literal["reject", "warn"]
BenchVerdict = Literal["faster", "slower", "indistinguishable", "invalid"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that makes the figures void (`reject`) or that a reader must know (`warn`)."""

    name: str
    severity: Severity
    detail: str


@dataclass(frozen=True, slots=True)
class ArmTimes:
    """One program's times in ms by mode; `status` is "ok" or says why it was not measured."""

    name: str
    status: str
    first_call_s: float | None
    times_ms: dict[str, Estimate]


@dataclass(frozen=True, slots=True)
class Speedup:
    """Baseline over candidate, from pairs of the same round, in one mode."""

    baseline: str
    mode: str
    ratio: Estimate
    verdict: str


@dataclass(frozen=True, slots=True)
class BenchReport:
    """The outcome of one benchmark. Times are in ms, `imports` in s.

    `mode` is the primary one, which `verdict` and `best_baseline` speak of. `verdict` compares with
    eager and is "invalid" if any finding rejects; `speedups` are then still listed, as evidence.
    """

    reference: str
    candidate: str
    device: str
    mode: str
    verdict: BenchVerdict
    arms: tuple[ArmTimes, ...]
    speedups: tuple[Speedup, ...]
    noise: dict[str, float]
    best_baseline: str
    findings: tuple[Finding, ...]
    floor: Floor | None
    imports: dict[str, float]
    checks: dict[str, Any]
    environment: dict[str, Any]
    sensors: dict[str, Any]
    raw: dict[str, Any] = field(repr=False)

    @property
    def rejected(self) -> bool:
        """Whether a finding makes the figures void."""
        return any(finding.severity == "reject" for finding in self.findings)

    def time_ms(self, arm: str) -> Estimate | None:
        """Median time of an arm in the primary mode, or None where it was not measured."""
        return next((a.times_ms.get(self.mode) for a in self.arms if a.name == arm), None)

    def speedup(self, baseline: str = EAGER) -> Speedup | None:
        """Speed-up over a baseline in the primary mode, or None where it was not measured."""
        wanted = (baseline, self.mode)
        return next((s for s in self.speedups if (s.baseline, s.mode) == wanted), None)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON-ready data; `times_ms`, `speedup` are the primary mode's medians."""
        times = {a.name: a.times_ms[self.mode].median for a in self.arms if self.mode in a.times_ms}
        ratios = {s.baseline: s.ratio.median for s in self.speedups if s.mode == self.mode}
        summary = {
            "reference": self.reference,
            "candidate": self.candidate,
            "device": self.device,
            "verdict": self.verdict,
            "mode": self.mode,
            "times_ms": times,
            "speedup": ratios,
            "best_baseline": self.best_baseline,
            "fraction_of_floor": self.floor.fraction_of_floor if self.floor else None,
            "findings": [asdict(finding) for finding in self.findings],
        }
        return summary | {
            "floor": asdict(self.floor) if self.floor else None,
            "noise": self.noise,
            "arms": [asdict(arm) for arm in self.arms],
            "pairs": [asdict(speedup) for speedup in self.speedups],
            "imports_s": self.imports,
            "checks": self.checks,
            "sensors": self.sensors,
            "environment": self.environment,
        }


def build_report(raw: Mapping[str, Any], programs: Mapping[str, Any] | None) -> BenchReport:
    """Judges raw samples: `raw` is what the worker wrote, `programs` the explain object, if any."""
    samples: Mapping[str, Mapping[str, Sequence[float]]] = raw["samples"]
    mode = raw["modes"][0]
    arms = tuple(_arm_times(arm, samples) for arm in raw["arms"])
    noise = {name: _noise(times) for name, times in samples.items()}
    speedups = tuple(s for name, times in samples.items() for s in _speedups(name, times, noise))
    floor = _floor(programs, raw, samples[mode])
    findings = tuple(
        [Finding(**f) for f in raw["findings"]]
        + _clock_findings(raw.get("host_ms", {}), samples)
        + _floor_findings(programs, raw, estimate(samples[mode][CANDIDATE]).median)
    )
    return BenchReport(
        reference=raw["reference"],
        candidate=raw["candidate"],
        device=raw["environment"]["device"],
        mode=mode,
        verdict=_verdict(findings, speedups, mode),
        arms=arms,
        speedups=speedups,
        noise=noise,
        best_baseline=_best(arms, mode),
        findings=findings,
        floor=floor,
        imports=raw["imports"],
        checks=raw["checks"],
        environment=raw["environment"],
        sensors=raw["sensors"],
        raw=dict(raw),
    )


def _arm_times(arm: Mapping[str, Any], samples: Mapping[str, Mapping[str, Any]]) -> ArmTimes:
    name = arm["name"]
    times = {mode: estimate(arms[name]) for mode, arms in samples.items() if arms.get(name)}
    return ArmTimes(name, arm["status"], arm.get("first_call_s"), times)


def _noise(times: Mapping[str, Sequence[float]]) -> float:
    return noise_of(paired_ratio(times[EAGER], times[EAGER_AGAIN]))


def _speedups(
    mode: str, times: Mapping[str, Sequence[float]], noise: Mapping[str, float]
) -> list[Speedup]:
    found = []
    for name, baseline in times.items():
        if name in (CANDIDATE, EAGER_AGAIN) or not baseline:
            continue
        ratio = paired_ratio(baseline, times[CANDIDATE])
        found.append(Speedup(name, mode, ratio, judge(ratio, noise[mode])))
    return found


def _verdict(findings: Sequence[Finding], speedups: Sequence[Speedup], mode: str) -> BenchVerdict:
    if any(finding.severity == "reject" for finding in findings):
        return "invalid"
    return next(s.verdict for s in speedups if s.baseline == EAGER and s.mode == mode)  # type: ignore[return-value]


def _best(arms: Sequence[ArmTimes], mode: str) -> str:
    """The fastest baseline: the one that a speed-up is honestly quoted against."""
    measured = [a for a in arms if a.name not in (CANDIDATE, EAGER_AGAIN) and mode in a.times_ms]
    return min(measured, key=lambda arm: arm.times_ms[mode].median).name


def _floor(
    programs: Mapping[str, Any] | None,
    raw: Mapping[str, Any],
    times: Mapping[str, Sequence[float]],
) -> Floor | None:
    if programs is None:
        return None
    eager, ours = (estimate(times[name]).median for name in (EAGER, CANDIDATE))
    return floor_of(programs, raw["ceilings"], eager, ours)


def _floor_findings(
    programs: Mapping[str, Any] | None, raw: Mapping[str, Any], ours_ms: float
) -> list[Finding]:
    if programs is None:
        return []
    cache = raw["environment"].get("cache_bytes", 0)
    why = beats_light(programs, raw["ceilings"], ours_ms, cache)
    if why is None:
        return []
    detail = f"the candidate takes {ours_ms:.4g} ms, but {why}: work is missing or hidden"
    return [Finding("faster-than-floor", "reject", detail)]


def _clock_findings(
    host: Mapping[str, Mapping[str, Sequence[float]]],
    samples: Mapping[str, Mapping[str, Sequence[float]]],
) -> list[Finding]:
    """Device events against the host clock: work outside of the events shows as host time."""
    found = []
    for mode, arms in host.items():
        for name, times in arms.items():
            waited, event = estimate(times).median, estimate(samples[mode][name]).median
            if waited > SUSPICIOUS_HOST_RATIO * event and waited - event > HOST_SLACK_MS:
                severity = "reject" if name == CANDIDATE else "warn"
                detail = (
                    f"{name}: device events saw {event:.4g} ms, the host waited {waited:.4g} ms "
                    f"({mode}): work runs outside of the timed stream"
                )
                found.append(Finding("clock-mismatch", severity, detail))
    return found
