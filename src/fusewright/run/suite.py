"""Runs a folder of problems through optimise, verify and bench; resumes, and survives crashes.

Each step of each problem runs in a process of its own, which the given callables start: a crash, a
hang or an exception of one problem is that problem's result. Steps already done by the same version
of the package on the same file are taken from the store. First everything is emitted and built,
then verified, `jobs` at a time as far as the devices' memory goes; afterwards the benchmarks run
one by one, since they must have the machine to themselves.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from fusewright.errors import FusewrightError, OutputError, UsageError
from fusewright.run.rooms import Closed, Rooms, side_by_side
from fusewright.run.store import Store, digest, file_digest
from fusewright.run.suite_table import markdown_table, summarize

Json = dict[str, Any]
# Bytes of a verification beside the problem's own: two processes with a CUDA context and libraries.
CONTEXTS = 3 << 30
# What a verification holds at once, in copies: inputs (drawn, lent, float64), parameters and
# buffers (both modules, float64, redrawn), outputs and one step's intermediates (several float64
# runs). Whoever still runs out of memory is verified once more, alone.
COPIES = {"inputs": 4, "state": 8, "outputs": 8, "largest": 6}
# A baseline that compiles runs once.
WARM_COPIES = {"inputs": 1, "state": 1, "outputs": 1, "largest": 4}


@dataclass(frozen=True, slots=True)
class Steps:
    """What is done with a problem file and the file emitted for it; what they raise is its result.

    `optimize(problem, new)` writes `new` and returns `explain --json`'s object, with the bytes of
    `inputs`, `state`, `outputs` and the `largest` value under `memory`. `build` compiles `new`.
    `verify` and `warm` (which fills the caches that `measure` reads) get the index of a device of
    `rooms` (free bytes) as third argument; `verify` returns `verify --json`'s object. `measure(
    problem, new, explained)` returns `bench --json`'s. `stop` ends whatever runs, after Ctrl-C.
    """

    optimize: Callable[[Path, Path], Json]
    verify: Callable[[Path, Path, int], Json] | None = None
    measure: Callable[[Path, Path, Mapping[str, Any]], Json] | None = None
    build: Callable[[Path, Path], Json] | None = None
    warm: Callable[[Path, Path, int], Json] | None = None
    stop: Callable[[], None] = lambda: None
    rooms: Sequence[int] = (1 << 62,)


@dataclass(frozen=True, slots=True)
class SuiteReport:
    """Results in the order of the problems, and a summary over them."""

    results: tuple[Json, ...]
    summary: Json

    def to_json(self) -> Json:
        """The report as JSON-ready data."""
        return {"results": list(self.results), "summary": self.summary}


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of the suite: what to do with each problem, where results go, whether to stop."""

    steps: Steps
    store: Store
    out_dir: Path
    version: str
    timing: object
    jobs: int
    names: Mapping[str, Path]
    results: dict[str, Json]
    progress: Progress
    begun: float = field(default_factory=time.monotonic)
    stopped: threading.Event = field(default_factory=threading.Event)

    def new(self, name: str) -> Path:
        """Where a problem's emitted file is."""
        return self.out_dir / "files" / f"{name}.py"

    def ready(self) -> list[str]:
        """The problems that nothing has failed for."""
        return [name for name in self.names if self.results[name]["status"] == "ok"]

    def stop(self) -> None:
        """After Ctrl-C: what is under way ends, and what it says then is not believed."""
        self.stopped.set()
        self.steps.stop()


def suite(
    paths: Sequence[Path],
    steps: Steps,
    out_dir: Path,
    jobs: int = 1,
    *,
    options: object = (),
    timing: object = (),
    console: Console | None = None,
) -> SuiteReport:
    """Runs every problem of `paths` (files and folders) and writes what came out to `out_dir`.

    `options` names everything that the steps' results depend on beside the file and this package,
    `timing` what only the benchmarks depend on.
    Writes `results.json`, `results.md`, `results.sqlite`, `log.jsonl` (each step as it ends) and
    the emitted files, after Ctrl-C too. Failures are tried again by the next run. Raises UsageError
    for no problems.
    """
    names = problem_names(find_problems(paths))
    if jobs < 1:
        raise UsageError(f"--jobs must be at least 1, not {jobs}")
    try:
        (out_dir / "files").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out_dir / 'files'} cannot be made: {error.strerror}") from error
    version, store = digest(package_digest(), options), Store(out_dir / "results.sqlite")
    results = {name: _blank(name, path) for name, path in names.items()}
    with _progress(console) as progress:
        run = _Run(steps, store, out_dir, version, timing, jobs, names, results, progress)
        try:
            _emit_all(run)
            _verify_all(run)
            _measure_all(run)
        finally:
            report = SuiteReport(tuple(results.values()), summarize(results.values()))
            _write(out_dir, report)
    return report


def _blank(name: str, path: Path) -> Json:
    return {
        "problem": name,
        "path": str(path),
        "status": "not run",
        "verdict": None,
        "times_ms": {},
        "speedup": {},
        "fraction_of_floor": None,
        "kernels": None,
        "extern_calls": None,
    }


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


def _emit_all(run: _Run) -> None:
    """Every problem's file, built: the processor's work, which needs no room on a device."""
    _in_parallel(run, "optimise", list(run.names), lambda name: _emit(run, name))


def _emit(run: _Run, name: str) -> None:
    path, new, result = run.names[name], run.new(name), run.results[name]
    key = digest(run.version, file_digest(path))
    # A stored explanation is worth nothing without the very file that it explains.
    stored = run.store.get("optimize", key)
    if stored and not (new.exists() and file_digest(new) == stored["emitted"]):
        run.store.forget("optimize", key)

    def optimize() -> Json:
        explained = run.steps.optimize(path, new)
        return {"explained": explained, "emitted": file_digest(new)}

    result["status"] = "ok"
    outcome = _step(run, name, "optimize", key, optimize)
    if outcome is None:
        return
    explained = result["explained"] = outcome["explained"]
    optimized = explained.get("optimized", {})
    result["kernels"] = len(optimized.get("kernels", ()))
    result["extern_calls"] = len(optimized.get("extern_calls", ()))
    if (build := run.steps.build) is not None:
        _step(run, name, "build", None, lambda: build(path, new))


def _verify_all(run: _Run) -> None:
    """Verdicts, and warm caches for the benchmarks, in as much company as memory allows.

    A verdict other than acceptance that was made in company is made once more without.
    """
    rooms = Rooms(run.steps.rooms)
    ready = sorted(run.ready(), key=lambda name: -_need(run, name, COPIES))
    known = {name for name in ready if run.store.get("verify", _key(run, name)) is not None}
    _in_parallel(run, "verify", ready, lambda name: _verify_and_warm(run, name, rooms), rooms)
    again = [name for name in ready if name not in known and _is_doubtful(run.results[name])]
    if run.jobs == 1 or not again:
        return
    for name in again:
        run.store.forget("verify", _key(run, name))
        run.results[name] |= {"status": "ok", "verdict": None}
    alone = partial(_verify, run, rooms=rooms, alone=True)
    _in_parallel(run, "verify alone", again, alone, rooms)


def _is_doubtful(result: Json) -> bool:
    return result["status"] == "verify failed" or result["verdict"] not in (None, "accept")


def _verify_and_warm(run: _Run, name: str, rooms: Rooms) -> None:
    _verify(run, name, rooms)
    warm, path, new = run.steps.warm, run.names[name], run.new(name)
    if warm is None or run.store.get("bench", _key(run, name, run.timing)) is not None:
        return
    with rooms.enter(_need(run, name, WARM_COPIES)) as place:
        _step(run, name, "warm", None, lambda: warm(path, new, place))


def _verify(run: _Run, name: str, rooms: Rooms, alone: bool = False) -> None:
    verify, path, new, result = run.steps.verify, run.names[name], run.new(name), run.results[name]
    if verify is None:
        return

    def judged() -> Json:
        need = max(run.steps.rooms) if alone else _need(run, name, COPIES)
        with rooms.enter(need) as place:
            return verify(path, new, place)

    verified = _step(run, name, "verify", _key(run, name), judged)
    if verified is not None:
        result |= {"verdict": verified.get("verdict"), "verify": verified}


def _need(run: _Run, name: str, copies: Mapping[str, int]) -> int:
    """Bytes of device memory that a problem is let in with."""
    memory = run.results[name]["explained"].get("memory", {})
    return CONTEXTS + sum(count * memory.get(what, 0) for what, count in copies.items())


def _key(run: _Run, name: str, *more: object) -> str:
    return digest(run.version, file_digest(run.names[name]), file_digest(run.new(name)), *more)


def _in_parallel(
    run: _Run,
    title: str,
    names: Sequence[str],
    work: Callable[[str], None],
    rooms: Rooms | None = None,
) -> None:
    """`work` for each name, `run.jobs` at a time."""
    task = run.progress.add_task(title, total=len(names))

    def done(k: int, _: None) -> None:
        run.progress.update(task, advance=1, description=f"{title}: {names[k]}")

    def stop() -> None:
        run.stop()
        if rooms is not None:
            rooms.close()

    side_by_side([partial(work, name) for name in names], run.jobs, done, stop)


def _measure_all(run: _Run) -> None:
    """Benchmarks what was emitted, one at a time; a rejected file's speed means nothing."""
    measure = run.steps.measure
    if measure is None:
        return
    ready = [name for name in run.ready() if run.results[name]["verdict"] != "reject"]
    task = run.progress.add_task("bench", total=len(ready))
    for name in ready:
        run.progress.update(task, description=f"bench: {name}")
        result, arguments = run.results[name], (run.names[name], run.new(name))
        timed = partial(measure, *arguments, result["explained"])
        measured = _step(run, name, "bench", _key(run, name, run.timing), timed)
        if measured is not None:
            wanted = ("times_ms", "speedup", "fraction_of_floor", "best_baseline", "findings")
            result |= {key: measured.get(key) for key in wanted}
            result["bench"] = measured
        run.progress.update(task, advance=1)


def _step(
    run: _Run, name: str, kind: str, key: str | None, work: Callable[[], Json]
) -> Json | None:
    """The stored outcome of a step, else its new one; None, with status and error, if it failed.

    A step without a key leaves nothing to keep but files.
    """
    if key is not None and (stored := run.store.get(kind, key)) is not None:
        return stored
    result, start = run.results[name], time.monotonic()
    try:
        outcome = work()
        if run.stopped.is_set():
            raise Closed(name)
    except Exception as error:
        if run.stopped.is_set():
            result["status"] = "not run"
            return None
        # Whatever one problem raises must not end the others; it is that problem's result.
        result["status"] = f"{kind} failed"
        known = isinstance(error, FusewrightError)
        result["error"] = str(error) if known else f"{type(error).__name__}: {error}"
        _log(run, name, kind, start, error=result["error"])
        return None
    if key is not None:
        run.store.put(kind, key, outcome)
    _log(run, name, kind, start, **{k: outcome[k] for k in ("verdict", "times_ms") if k in outcome})
    return outcome


def _log(run: _Run, name: str, kind: str, start: float, **found: object) -> None:
    """A line of `log.jsonl`: what ended when (`at`, seconds from the start) and took how long."""
    now = time.monotonic()
    line = {"at": round(now - run.begun, 2), "problem": name, "step": kind}
    line |= {"seconds": round(now - start, 2), **found}
    with (run.out_dir / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(line) + "\n")


def _write(out_dir: Path, report: SuiteReport) -> None:
    _write_whole(out_dir / "results.json", json.dumps(report.to_json(), indent=1))
    _write_whole(out_dir / "results.md", markdown_table(report.results, report.summary))


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _progress(console: Console | None) -> Progress:
    """A progress display on the console given, silent without one."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    chosen = console or Console(stderr=True)
    return Progress(*columns, TimeElapsedColumn(), console=chosen, disable=console is None)
