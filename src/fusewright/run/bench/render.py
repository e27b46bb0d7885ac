"""A benchmark report for people, with rich. Says what was measured; judges nothing."""

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fusewright.run.bench.report import CANDIDATE, EAGER_AGAIN, ArmTimes, BenchReport
from fusewright.run.bench.stats import Estimate

STYLES = {"faster": "green", "slower": "red", "invalid": "bold red"}


def render_bench(report: BenchReport) -> RenderableType:
    """The report as a rich renderable: one table of times, then verdict, floor and findings."""
    parts: list[RenderableType] = [_times(report), _verdict(report)]
    if report.floor:
        parts.append(_floor(report))
    parts += [_finding(finding) for finding in report.findings]
    parts.append(Text(_conditions(report), style="dim"))
    return Group(*parts)


def format_ms(value: float) -> str:
    """A time in ms with four significant digits."""
    return f"{value:.4g}"


def _interval(found: Estimate) -> str:
    return f"{format_ms(found.median)} [{format_ms(found.low)}, {format_ms(found.high)}]"


def _times(report: BenchReport) -> Table:
    modes = report.raw["modes"]
    table = Table(title=f"{report.candidate} against {report.reference} on {report.device}")
    table.add_column("program")
    for mode in modes:
        table.add_column(f"{mode}, ms [95 %]", justify="right")
    table.add_column(f"ours is ... times as fast ({report.mode})", justify="right")
    for arm in report.arms:
        if arm.name != EAGER_AGAIN:
            table.add_row(*_row(report, arm, modes))
    return table


def _row(report: BenchReport, arm: ArmTimes, modes: list[str]) -> list[str]:
    if not arm.times_ms:
        return [arm.name, arm.status.splitlines()[0][:60], *[""] * len(modes)]
    times = [_interval(arm.times_ms[mode]) for mode in modes]
    name = "ours" if arm.name == CANDIDATE else arm.name
    speedup = report.speedup(arm.name)
    if speedup is None:
        return [name, *times, ""]
    ratio = speedup.ratio
    text = f"{ratio.median:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}] {speedup.verdict}"
    return [name, *times, text]


def _verdict(report: BenchReport) -> Text:
    if report.verdict == "invalid":
        return Text("invalid: the findings below make the times void", style=STYLES["invalid"])
    text = (
        f"{report.verdict} than eager"
        if report.verdict != "indistinguishable"
        else ("indistinguishable from eager")
    )
    best = report.speedup(report.best_baseline)
    against = f"; the best baseline is {report.best_baseline}"
    against += f": {best.ratio.median:.2f}x ({best.verdict})" if best else ""
    noise = f"; noise {report.noise[report.mode]:.1%}"
    return Text(text + against + noise, style=STYLES.get(report.verdict, "yellow"))


def _floor(report: BenchReport) -> Text:
    floor = report.floor
    assert floor is not None
    algebra = f"algebra {floor.algebra:.2f}x, " if floor.algebra is not None else ""
    fusion = "fusion" if floor.algebra is not None else "algebra and fusion"
    return Text(
        f"floor: {format_ms(floor.optimized_ms)} ms for our program, "
        f"{format_ms(floor.reference_ms)} ms for the original; we reach "
        f"{floor.fraction_of_floor:.0%} of ours. Speed-up by {algebra}{fusion} {floor.fusion:.2f}x,"
        f" implementation {floor.implementation:.2f}x"
    )


def _finding(finding: Any) -> Text:
    style = STYLES["invalid"] if finding.severity == "reject" else "yellow"
    return Text(f"{finding.severity}: {finding.name}: {finding.detail}", style=style)


def _conditions(report: BenchReport) -> str:
    facts, sensors = report.environment, report.sensors
    parts = [f"torch {facts['torch']}", f"{facts['threads']} threads"]
    if "driver" in facts:
        parts.append(f"CUDA {facts['cuda']}, driver {facts['driver']}")
    for name, unit in (("sm_mhz", "MHz"), ("power_w", "W")):
        if name in sensors:
            parts.append(f"{sensors[name]['median']:.0f} {unit}")
    parts += [f"{name} import {seconds:.2f} s" for name, seconds in report.imports.items()]
    parts.append(f"{report.checks['compared']} results compared")
    return ", ".join(parts)
