"""Runs a folder of problems through optimise, verify and bench; resumes, and survives crashes.

Each step of each problem runs in a process of its own, which the given callables start: a crash, a
hang or an exception of one problem is that problem's result. Steps already done by the same version
of the package on the same file are taken from the store. Optimising and verifying run `jobs` at a
time; afterwards the benchmarks run one by one, since they must have the machine to themselves.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from fusewright.errors import FusewrightError, OutputError, UsageError
from fusewright.run.bench_stats import geometric_mean
from fusewright.run.process import fusewright_command, watch
from fusewright.run.store import Store, digest, file_digest

Optimize = Callable[[Path, Path], dict[str, Any]]
Verify = Callable[[Path, Path], dict[str, Any]]
Measure = Callable[[Path, Path, Mapping[str, Any]], dict[str, Any]]
COLUMNS = (
    "problem", "status", "verdict", "eager ms", "best baseline", "ours ms", "over eager",
    "over best", "of floor", "kernels", "extern calls",
)  # fmt: skip


class SuiteError(FusewrightError):
    """One step of one problem failed: its process crashed, hung or gave no result."""


@dataclass(frozen=True, slots=True)
class SuiteReport:
    """Results in the order of the problems, and a summary over them."""

    results: tuple[dict[str, Any], ...]
    summary: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The report as JSON-ready data."""
        return {"results": list(self.results), "summary": self.summary}


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a run of the suite does with each problem, and where."""

    optimize: Optimize
    verify: Verify | None
    measure: Measure | None
    store: Store
    out_dir: Path
    version: str


def suite(
    paths: Sequence[Path],
    optimize: Optimize,
    out_dir: Path,
    jobs: int = 1,
    *,
    verify: Verify | None = None,
    measure: Measure | None = None,
    options: object = (),
    console: Console | None = None,
) -> SuiteReport:
    """Runs every problem of `paths` (files and folders) and writes what came out to `out_dir`.

    `optimize(problem, out_file)` returns `explain --json`'s object, `verify(problem, out_file)`
    that of `verify --json`, `measure(problem, out_file, explained)` that of `bench --json`; what
    they raise is the problem's result. `options` names everything that their results depend on
    beside the file and this package. Writes `results.json`, `results.md`, `results.sqlite` and the
    emitted files. Failures are tried again by the next run. Raises UsageError for no problems.
    """
    names = problem_names(find_problems(paths))
    if jobs < 1:
        raise UsageError(f"--jobs must be at least 1, not {jobs}")
    emitted = out_dir / "files"
    try:
        emitted.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{emitted} cannot be made: {error.strerror}") from error
    version = digest(package_digest(), options)
    plan = _Plan(optimize, verify, measure, Store(out_dir / "results.sqlite"), emitted, version)
    results: dict[str, dict[str, Any]] = {}
    with _progress(console) as progress:
        _prepare(plan, names, jobs, results, progress)
        _measure(plan, names, results, progress)
    report = SuiteReport(tuple(results[name] for name in names), summarize(results.values()))
    _write(out_dir, report)
    return report


def find_problems(paths: Sequence[Path]) -> list[Path]:
    """The files named and, in folders named, every Python file that defines a class Model."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += [
                x for x in sorted(path.rglob("*.py")) if "class Model" in x.read_text("utf-8")
            ]
        elif path.is_file():
            found.append(path)
        else:
            raise UsageError(f"{path}: no such file or folder")
    if not found:
        raise UsageError("no problem files: a problem file defines a class Model")
    return list(dict.fromkeys(x.resolve() for x in found))


def problem_names(files: Sequence[Path]) -> dict[str, Path]:
    """A short unique name for each file: its path below the folder that all have in common."""
    common = Path(os.path.commonpath([file.parent for file in files]))
    return {"__".join(x.relative_to(common).with_suffix("").parts): x for x in files}


def package_digest() -> str:
    """Digest of this package's sources: another version's results are not taken for this one's."""
    package = Path(__file__).parents[1]
    files = sorted(x for x in package.rglob("*") if x.is_file() and "__pycache__" not in x.parts)
    return digest([[str(x.relative_to(package)), file_digest(x)] for x in files])


def _prepare(
    plan: _Plan, names: Mapping[str, Path], jobs: int, results: dict[str, Any], progress: Progress
) -> None:
    """Optimises and verifies, `jobs` at a time; Ctrl-C drops what has not begun."""
    task = progress.add_task("optimise, verify", total=len(names))
    pool = ThreadPoolExecutor(jobs)
    futures: dict[Future[dict[str, Any]], str] = {
        pool.submit(_optimize_and_verify, plan, name, path): name for name, path in names.items()
    }
    try:
        for future in as_completed(futures):
            results[futures[future]] = future.result()
            progress.update(task, advance=1, description=f"optimise, verify: {futures[future]}")
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _optimize_and_verify(plan: _Plan, name: str, path: Path) -> dict[str, Any]:
    result: dict[str, Any] = {
        "problem": name,
        "path": str(path),
        "status": "ok",
        "verdict": None,
        "times_ms": {},
        "speedup": {},
        "fraction_of_floor": None,
        "kernels": None,
        "extern_calls": None,
    }
    new = plan.out_dir / f"{name}.py"
    key = digest(plan.version, file_digest(path))
    # A stored explanation is worth nothing without the very file that it explains.
    stored = plan.store.get("optimize", key)
    if stored and not (new.exists() and file_digest(new) == stored["emitted"]):
        plan.store.forget("optimize", key)

    def optimize() -> dict[str, Any]:
        explained = plan.optimize(path, new)
        return {"explained": explained, "emitted": file_digest(new)}

    outcome = _step(plan, result, "optimize", key, optimize)
    if outcome is None:
        return result
    explained = outcome["explained"]
    optimized = explained.get("optimized", {})
    result["kernels"] = len(optimized.get("kernels", ()))
    result["extern_calls"] = len(optimized.get("extern_calls", ()))
    result["explained"] = explained
    if (verify := plan.verify) is not None:
        key = digest(plan.version, file_digest(path), file_digest(new))
        verified = _step(plan, result, "verify", key, lambda: verify(path, new))
        result["verdict"] = verified.get("verdict") if verified else None
    return result


def _measure(
    plan: _Plan, names: Mapping[str, Path], results: dict[str, Any], progress: Progress
) -> None:
    """Benchmarks what was emitted, one at a time; a rejected file's speed means nothing."""
    measure = plan.measure
    if measure is None:
        return
    ready = [n for n in names if results[n]["status"] == "ok" and results[n]["verdict"] != "reject"]
    task = progress.add_task("bench", total=len(ready))
    for name in ready:
        progress.update(task, description=f"bench: {name}")
        path, new, result = names[name], plan.out_dir / f"{name}.py", results[name]
        key = digest(plan.version, file_digest(path), file_digest(new))
        explained = result["explained"]
        measured = _step(
            plan,
            result,
            "bench",
            key,
            lambda: measure(path, new, explained),  # noqa: B023
        )
        if measured is not None:
            wanted = ("times_ms", "speedup", "fraction_of_floor", "best_baseline", "findings")
            result |= {key: measured.get(key) for key in wanted}
            result["bench"] = measured
        progress.update(task, advance=1)


def _step(
    plan: _Plan, result: dict[str, Any], kind: str, key: str, work: Callable[[], dict[str, Any]]
) -> dict[str, Any] | None:
    """The stored outcome of a step, else its new one; None, with status and error, if it failed."""
    if (stored := plan.store.get(kind, key)) is not None:
        return stored
    try:
        outcome = work()
    except Exception as error:
        # Whatever one problem raises must not end the others; it is that problem's result.
        result["status"] = f"{kind} failed"
        result["error"] = f"{type(error).__name__}: {error}"
        return None
    plan.store.put(kind, key, outcome)
    return outcome


def cli_step(command: str, options: Sequence[str], timeout: float) -> Callable[..., dict[str, Any]]:
    """A callable for `suite` that runs `fusewright COMMAND` in a process of its own.

    optimize: called with (problem, out_file); others with (problem, out_file) as two files. The
    status 1 of `verify` is a verdict and no failure. Raises SuiteError for a crash or a time-out.
    """

    def run(problem: Path, new: Path) -> dict[str, Any]:
        files = [str(problem), *(["-o"] if command == "optimize" else []), str(new)]
        arguments = [command, *files, *options, "--json"]
        ended = watch(fusewright_command(arguments), timeout)
        if ended.stdout.strip().startswith("{") and ended.status is not None and ended.status >= 0:
            found = json.loads(ended.stdout)
            if "error" not in found or command == "verify":
                return found
            raise SuiteError(str(found["error"]))
        last = f"\n{ended.stderr_tail}" if ended.stderr_tail else ""
        raise SuiteError(f"`fusewright {command}` {ended.describe()}{last}")

    return run


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


def markdown_table(report: SuiteReport) -> str:
    """The results as a Markdown table, the summary below it."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    lines += ["| " + " | ".join(_cells(result)) + " |" for result in report.results]
    summary = report.summary
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


def _write(out_dir: Path, report: SuiteReport) -> None:
    _write_whole(out_dir / "results.json", json.dumps(report.to_json(), indent=1))
    _write_whole(out_dir / "results.md", markdown_table(report))


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _progress(console: Console | None) -> Progress:
    """A progress display on the console given, silent without one."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    chosen = console or Console(stderr=True)
    return Progress(*columns, TimeElapsedColumn(), console=chosen, disable=console is None)
