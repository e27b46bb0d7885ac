"""The verdict and what it rests on: records, JSON by docs/design.md, and a table for people.

No checks are run here and no thresholds are kept here.
"""

from dataclasses import dataclass
from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

Verdict = Literal["accept", "reject", "inconclusive"]
Outcome = Literal["pass", "fail", "warn", "skip"]

_EXIT_CODES: dict[Verdict, int] = {"accept": 0, "reject": 1, "inconclusive": 2}
_STYLES = {"pass": "green", "fail": "bold red", "warn": "yellow", "skip": "dim"}
_VERDICT_STYLES = {"accept": "bold green", "reject": "bold red", "inconclusive": "bold yellow"}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `reproduce` is a shell command, empty where there is none."""

    name: str
    outcome: Outcome
    detail: str
    reproduce: str = ""

    def to_json(self) -> dict[str, str]:
        return {"name": self.name, "outcome": self.outcome, "detail": self.detail}


@dataclass(frozen=True, slots=True)
class ErrorSummary:
    """Relative L2 errors against float64, the worst over all points where they were measured.

    minimum_detectable: the smallest error that would have been rejected; None where nothing could
    be measured (integer outputs only, no float64 oracle).
    """

    reference: float | None = None
    candidate: float | None = None
    minimum_detectable: float | None = None

    def to_json(self) -> dict[str, float | None]:
        return {
            "reference": self.reference,
            "candidate": self.candidate,
            "minimum_detectable": self.minimum_detectable,
        }


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The result of `verify`."""

    verdict: Verdict
    checks: tuple[Check, ...]
    error: ErrorSummary
    accuracy: str = ""
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """0 accept, 1 reject, 2 inconclusive."""
        return _EXIT_CODES[self.verdict]

    def failed(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if check.outcome == "fail")

    def to_json(self) -> dict[str, Any]:
        """The object that `fusewright verify --json` prints."""
        return {
            "verdict": self.verdict,
            "checks": [check.to_json() for check in self.checks],
            "error": self.error.to_json(),
        }


def conclude(checks: tuple[Check, ...], undecided: tuple[str, ...]) -> Verdict:
    """Any failed check rejects; else anything that could not be told makes it inconclusive."""
    if any(check.outcome == "fail" for check in checks):
        return "reject"
    return "inconclusive" if undecided else "accept"


def render_verify(report: VerifyReport) -> RenderableType:
    """A table of the checks, what failed first, then the errors and the verdict."""
    table = Table(box=None, pad_edge=False)
    for heading in ("check", "outcome", "detail"):
        table.add_column(heading, overflow="fold", no_wrap=heading != "detail")
    order = {"fail": 0, "warn": 1, "pass": 2, "skip": 3}
    for check in sorted(report.checks, key=lambda c: order[c.outcome]):
        detail = check.detail + (f"\n{check.reproduce}" if check.reproduce else "")
        table.add_row(check.name, Text(check.outcome, _STYLES[check.outcome]), Text(detail))
    verdict = Text(f"\n{report.verdict}", _VERDICT_STYLES[report.verdict])
    return Group(table, verdict, Text(_error_line(report)))


def _error_line(report: VerifyReport) -> str:
    error = report.error
    parts = [f"in {report.seconds:.1f} s"]
    if report.accuracy:
        parts.append(report.accuracy)
    for name, value in (
        ("error of the reference", error.reference),
        ("of the candidate", error.candidate),
        ("smallest that would be rejected", error.minimum_detectable),
    ):
        if value is not None:
            parts.append(f"{name} {value:.2g}")
    return "; ".join(parts)
