"""What a run of the suite found, summed up and as a Markdown table. Runs nothing."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from fusewright.run.bench.stats import geometric_mean

COLUMNS = (
    "problem", "status", "verdict", "eager ms", "best baseline", "ours ms", "over eager",
    "over best", "of floor", "kernels", "extern calls",
)  # fmt: skip


def summarize(results: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts by status and verdict; speed-ups of files not rejected over eager and the best."""
    known = list(results)
    sound = [r for r in known if r["speedup"] and not _voided(r)]
    over_eager = [r["speedup"]["eager"] for r in sound if "eager" in r["speedup"]]
    over_best = [min(r["speedup"].values()) for r in sound]
    return {
        "problems": len(known),
        "status": _counts(r["status"] for r in known),
        "verdict": _counts(str(r["verdict"]) for r in known if r["verdict"]),
        "over_eager": _spread(over_eager),
        "over_best_baseline": _spread(over_best),
    }


def _voided(result: Mapping[str, Any]) -> bool:
    return any(finding["severity"] == "reject" for finding in result.get("findings") or ())


def _counts(values: Iterable[str]) -> dict[str, int]:
    listed = sorted(values)
    return {value: listed.count(value) for value in dict.fromkeys(listed)}


def _spread(ratios: Sequence[float]) -> dict[str, float]:
    if not ratios:
        return {}
    return {
        "count": len(ratios),
        "geometric_mean": geometric_mean(ratios),
        "median": median(ratios),
        "least": min(ratios),
        "greatest": max(ratios),
        "not_slower": sum(ratio >= 1 for ratio in ratios),
    }


def markdown_table(results: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> str:
    """The results as a Markdown table, the summary below it."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    lines += ["| " + " | ".join(_cells(result)) + " |" for result in results]
    lines += ["", f"{summary['problems']} problems: " + _in_words(summary["status"]) + "."]
    if summary["verdict"]:
        lines.append(f"Verdicts: {_in_words(summary['verdict'])}.")
    for key, title in (("over_eager", "eager"), ("over_best_baseline", "the best baseline")):
        if spread := summary[key]:
            lines.append(
                f"Over {title}: geometric mean {spread['geometric_mean']:.2f}x, "
                f"median {spread['median']:.2f}x, {spread['least']:.2f}x to "
                f"{spread['greatest']:.2f}x, not slower in {spread['not_slower']} of "
                f"{spread['count']}."
            )
    return "\n".join(lines) + "\n"


def _in_words(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _cells(result: Mapping[str, Any]) -> list[str]:
    times, speedup = result["times_ms"], result["speedup"]
    best = result.get("best_baseline")
    void = " (void)" if _voided(result) else ""
    return [
        result["problem"],
        result["status"],
        result["verdict"] or "",
        _number(times.get("eager")),
        f"{best} {_number(times.get(best))}" if best else "",
        _number(times.get("candidate")) + void,
        _number(speedup.get("eager"), "x"),
        _number(speedup.get(best), "x"),
        _number(result["fraction_of_floor"]),
        "" if result["kernels"] is None else str(result["kernels"]),
        "" if result["extern_calls"] is None else str(result["extern_calls"]),
    ]


def _number(value: float | None, unit: str = "") -> str:
    return "" if value is None else f"{value:.3g}{unit}"
