"""The benchmark: times a candidate file against its reference so that the figures can be trusted.

Public entry: `bench`. It starts fresh processes (first import with an empty extension cache, then
the measurement), watches over them and turns the samples into a report. No timing happens here and
torch is not imported.
"""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fusewright.errors import FusewrightError, UsageError
from fusewright.run.bench.report import BenchReport, build_report
from fusewright.run.process import python_command, watch

BASELINES = ("eager", "compile", "compile-max")
Progress = Callable[[str, float], None]
Race = Callable[[Mapping[str, Any]], dict[str, Any]]


class BenchError(FusewrightError):
    """The measurement could not be made: a program raised, crashed or did not end in time."""


def bench(
    reference: str | Path,
    candidate: str | Path,
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
    race: Race | None = None,
) -> BenchReport:
    """Times `ModelNew` of `candidate` against `Model` of `reference` on one device.

    Both get the same parameters and, in every round, the same fresh inputs; the rounds interleave
    all programs in random order (seeded) until `rounds` are done or `seconds` are over, at least 5.
    `baselines` are of `BASELINES`; eager is always run, since results are compared with it.
    `floor` is `explain --json`'s object, optionally with `ceilings` (`bytes_per_s`, `flops_per_s`).
    `imports` also measures the candidate's import with an empty extension cache. `timeout` (s)
    bounds each process. `race` measures a specification in a process that the caller has started,
    with the caller's caches; by default each benchmark has a fresh one. Raises BenchError and
    UsageError.
    """
    _check_arguments(reference, candidate, baselines, rounds, seconds)
    tell = progress or (lambda text, fraction: None)
    with tempfile.TemporaryDirectory(prefix="fusewright-bench-") as folder:
        output = Path(folder) / "outcome.json"
        first: dict[str, float] = {}
        if imports:
            tell("first import", 0.0)
            first = _in_process(
                "first_import", [str(candidate), str(output)], output, folder, timeout, tell
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
        if race is not None:
            raw = race(spec)
        else:
            raw = _in_process("worker", [json.dumps(spec)], output, folder, timeout, tell)
    raw["imports"] = {"first": first["import_s"], **raw["imports"]} if imports else {}
    return build_report(raw, floor)


def _check_arguments(
    reference: str | Path,
    candidate: str | Path,
    baselines: Sequence[str],
    rounds: int,
    seconds: float,
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
    variables = {"TORCH_EXTENSIONS_DIR": f"{extensions}/extensions"}
    command = python_command(f"fusewright.run.bench.{module}", arguments, variables)
    ended = watch(command, timeout, lambda line: _relay(line, tell))
    if not output.exists():
        text = f"the measured process {ended.describe()} and left no result"
        *_, last = ["", *ended.stderr_tail.strip().splitlines()]
        raise BenchError(f"{text}: {last}\n{ended.stderr_tail}".rstrip(": \n"))
    outcome = json.loads(output.read_text())
    if "error" in outcome:
        raise BenchError(outcome["error"])
    return outcome


def _relay(line: str, tell: Progress) -> None:
    if line.startswith("{"):
        message = json.loads(line)
        tell(message["text"], min(1.0, message["fraction"]))
