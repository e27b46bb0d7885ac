"""The benchmark: times a candidate file against its reference so that the figures can be trusted.

Public entry: `bench`. It starts fresh processes (first import with an empty extension cache, then
the measurement), watches over them and turns the samples into a report. No timing happens here and
torch is not imported.
"""

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fusewright.errors import FusewrightError, UsageError
from fusewright.run.bench_report import BenchReport, Finding, build_report

__all__ = ["BASELINES", "BenchError", "BenchReport", "Finding", "bench"]

BASELINES = ("eager", "compile", "compile-max")
STDERR_LINES = 25
Progress = Callable[[str, float], None]


class BenchError(FusewrightError):
    """The measurement could not be made: a program raised, crashed or did not end in time."""


def bench(
    reference: Path,
    candidate: Path,
    *,
    device: str = "auto",
    baselines: Sequence[str] = ("eager", "compile"),
    rounds: int = 60,
    seconds: float = 20.0,
    floor: Mapping[str, Any] | None = None,
    seed: int = 0,
    imports: bool = True,
    timeout: float = 1800.0,
    progress: Progress | None = None,
) -> BenchReport:
    """Times `ModelNew` of `candidate` against `Model` of `reference` on one device.

    Both get the same parameters and, in every round, the same fresh inputs; the rounds interleave
    all programs in random order (seeded) until `rounds` are done or `seconds` are over, at least 5.
    `baselines` are of `BASELINES`; eager is always run, since results are compared with it.
    `floor` is `explain --json`'s object, optionally with `ceilings` (`bytes_per_s`, `flops_per_s`).
    `imports` also measures the candidate's import with an empty extension cache. `timeout` (s)
    bounds each process. Raises BenchError and UsageError.
    """
    _check_arguments(reference, candidate, baselines, rounds, seconds)
    tell = progress or (lambda text, fraction: None)
    with tempfile.TemporaryDirectory(prefix="fusewright-bench-") as folder:
        output = Path(folder) / "outcome.json"
        first: dict[str, float] = {}
        if imports:
            tell("first import", 0.0)
            first = _in_process(
                "bench_import", [str(candidate), str(output)], output, folder, timeout, tell
            )
            output.unlink()
        spec = {
            "reference": str(reference),
            "candidate": str(candidate),
            "device": device,
            "baselines": list(baselines),
            "rounds": rounds,
            "seconds": seconds,
            "seed": seed,
            "output": str(output),
        }
        raw = _in_process("bench_worker", [json.dumps(spec)], output, folder, timeout, tell)
    raw["imports"] = {"first": first["import_s"], **raw["imports"]} if imports else {}
    return build_report(raw, floor)


def _check_arguments(
    reference: Path, candidate: Path, baselines: Sequence[str], rounds: int, seconds: float
) -> None:
    for path in (reference, candidate):
        if not Path(path).is_file():
            raise UsageError(f"{path}: no such file")
    if unknown := [name for name in baselines if name not in BASELINES]:
        raise UsageError(
            f"no such baseline: {', '.join(unknown)} (there are {', '.join(BASELINES)})"
        )
    if rounds < 1 or seconds <= 0:
        raise UsageError(f"rounds and seconds must be positive, not {rounds} and {seconds}")


def _in_process(
    module: str, arguments: list[str], output: Path, extensions: str, timeout: float, tell: Progress
) -> Any:
    """Runs `module.main(arguments)` in a fresh process; returns the JSON it left at `output`."""
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r}); "
        f"from fusewright.run import {module}; sys.exit({module}.main(sys.argv[1:]))"
    )
    # `env` sets the variable for the child alone; this process's environment stays as it is.
    variables = ["env", f"TORCH_EXTENSIONS_DIR={extensions}/extensions"]
    command = [*variables, sys.executable, "-c", code, *arguments]
    status, errors = _watch(command, timeout, tell)
    if not output.exists():
        raise BenchError(f"the measured process {_death(status, timeout)}\n{errors}".rstrip())
    outcome = json.loads(output.read_text())
    if "error" in outcome:
        raise BenchError(outcome["error"])
    return outcome


def _watch(command: list[str], timeout: float, tell: Progress) -> tuple[int | None, str]:
    """Runs a command, relays its progress; returns its status (None: killed), stderr's end."""
    with tempfile.TemporaryFile(mode="w+", errors="replace") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        late = threading.Event()
        watchdog = threading.Timer(timeout, lambda: (late.set(), process.kill()))
        watchdog.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                _relay(line, tell)
            status = process.wait()
        finally:
            watchdog.cancel()
            process.kill()
            process.wait()
        errors.seek(0)
        tail = errors.read().splitlines()[-STDERR_LINES:]
    return (None if late.is_set() else status), "\n".join(tail)


def _relay(line: str, tell: Progress) -> None:
    if line.startswith("{"):
        message = json.loads(line)
        tell(message["text"], min(1.0, message["fraction"]))


def _death(status: int | None, timeout: float) -> str:
    if status is None:
        return f"did not end within {timeout:g} s and was stopped"
    if status < 0 or status > 128:
        number = -status if status < 0 else status - 128
        return f"crashed (signal {number})"
    return f"ended with status {status} and left no result"
