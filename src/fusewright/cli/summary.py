"""What `optimize` prints: the file, its steps, what was rewritten, the verdict and the times."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from fusewright.pipeline import Compilation
from fusewright.run.bench import BenchReport
from fusewright.run.bench.render import format_ms
from fusewright.run.verify import VerifyReport

from .checks import Checked
from .explain import headline, lemma_gain, lemmas, program_lines
from .steps import step_rows

VERDICTS = {"accept": "bold green", "reject": "bold red", "inconclusive": "bold yellow"}
SPEEDS = {"faster": "bold green", "slower": "bold red", "invalid": "bold red"}


def render_summary(
    c: Compilation, told: Mapping[str, Any], output: Path, width: int
) -> RenderableType:
    """The written file in a dozen lines."""
    rows = step_rows(c)
    parts: list[RenderableType] = [*headline(c, told), *rewrite_lines(c, width)]
    if rows:
        parts += [Text(""), *program_lines(rows, width, details=False)]
    size = f"{len(c.module_text.splitlines())} lines"
    parts.append(Text.assemble("\nwritten: ", (str(output), "bold"), f" ({size})"))
    return Group(*parts)


def rewrite_lines(c: Compilation, width: int) -> Iterator[Text]:
    """One line for each rule that changed arithmetic or traffic."""
    for x in lemmas(c.rewrites):
        if not x.only_layout:
            gain = lemma_gain(x)
            text = Text(f"  {x.identity}")
            text.truncate(width - len(gain) - 2, overflow="ellipsis", pad=True)
            yield text.append(f"  {gain}", style="green")


def render_checked(checked: Checked) -> list[RenderableType]:
    """Verdict and times, each in a line or two; what failed in full."""
    parts: list[RenderableType] = []
    if checked.verified is not None:
        parts += verdict_lines(checked.verified)
    if checked.timed is not None:
        parts.append(times_line(checked.timed))
    if checked.skipped:
        parts.append(Text(checked.skipped, style="yellow"))
    return parts


def verdict_lines(found: VerifyReport) -> Iterator[Text]:
    """`verified: accept, 21 checks passed; error 1.1e-07, of the reference 1.2e-07`."""
    passed = sum(check.outcome == "pass" for check in found.checks)
    line = Text.assemble("verified: ", (found.verdict, VERDICTS[found.verdict]))
    line.append(f", {passed} checks passed")
    if found.error.candidate is not None and found.error.reference is not None:
        line.append(
            f"; relative error {found.error.candidate:.2g}, eager's {found.error.reference:.2g}"
        )
    yield line
    for check in found.checks:
        if check.outcome in ("fail", "warn"):
            style = "red" if check.outcome == "fail" else "yellow"
            yield Text(f"  {check.outcome}: {check.name}: {check.detail}", style=style)


def times_line(found: BenchReport) -> Text:
    """`timed: 1.2 ms, eager 9.8 ms: 8.2x [8.0, 8.4], 87 % of the floor`."""
    ours, eager, speedup = found.time_ms("candidate"), found.time_ms("eager"), found.speedup()
    if ours is None or eager is None or speedup is None:
        return Text("timed: no figures", style="yellow")
    r = speedup.ratio
    line = Text(f"timed: {format_ms(ours.median)} ms, eager {format_ms(eager.median)} ms: ")
    line.append(f"{r.median:.3g}x", style=SPEEDS.get(found.verdict, "bold yellow"))
    line.append(f" [{r.low:.3g}, {r.high:.3g}], {found.verdict}")
    if found.floor is not None:
        line.append(f"; {found.floor.fraction_of_floor:.0%} of the floor")
    for finding in found.findings:
        line.append(f"\n  {finding.severity}: {finding.name}: {finding.detail}", style="yellow")
    return line
