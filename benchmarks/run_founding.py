"""Optimises, verifies and times problems on this machine, within a time budget; writes one JSON.

    PYTHONPATH=src python benchmarks/run_founding.py --budget 540
    PYTHONPATH=src python benchmarks/run_founding.py examples/softmax_rows.py --target cpu

Needs a checkout and torch, nothing installed. Without files it takes the five founding problems at
full scale (FUSEWRIGHT_EXAMPLE_SCALE=small shrinks them). All files are written first, --jobs at a
time, so that nothing else runs while one is timed. The result is written after every problem, so a
run that is cut short keeps what it has. Exit status 1 if any problem failed or was rejected.
"""

import argparse
import datetime
import json
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fusewright.errors import FusewrightError
from fusewright.run.bench import bench
from fusewright.run.bench.render import format_ms
from fusewright.run.process import fusewright_command, watch

ROOT = Path(__file__).resolve().parents[1]
FOUNDING = (
    "sigmoid",
    "sum_reduction",
    "gemm_divide_sum_scaling",
    "gemm_sigmoid_scaling_residual",
    "matmul_sigmoid_sum",
)
# A step gets this share of what is left for its problem; the benchmark takes the rest.
OPTIMIZE_SHARE, VERIFY_SHARE = 0.4, 0.6
TIMING_SHARE = 0.3
LONGEST_TIMING_S = 30.0
LEAST_LEFT_S = 5.0


@dataclass(frozen=True)
class Deadline:
    """The end of the budget, shared out over the problems that are still to come."""

    end: float

    def left(self) -> float:
        return max(0.0, self.end - time.monotonic())

    def share(self, problems: int) -> "Deadline":
        return Deadline(time.monotonic() + self.left() / problems)


def main() -> int:
    """Runs every problem and prints a table; returns the exit status."""
    arguments = parse_arguments()
    out = arguments.out.resolve()
    (out / "files").mkdir(parents=True, exist_ok=True)
    deadline = Deadline(time.monotonic() + arguments.budget)
    files = arguments.problems or [ROOT / "examples" / f"{name}.py" for name in FOUNDING]
    results: list[dict[str, Any]] = []
    new = [out / "files" / f"{problem.stem}.py" for problem in files]
    limit = OPTIMIZE_SHARE * deadline.left()
    with ThreadPoolExecutor(arguments.jobs) as pool:
        made = list(pool.map(lambda p, n: run_optimize(p, n, arguments, limit), files, new))
    for index, problem in enumerate(files):
        print(f"{problem.stem}: {deadline.left():.0f} s left", file=sys.stderr, flush=True)
        own = deadline.share(len(files) - index)
        results.append(run_problem(problem, new[index], made[index], arguments, own))
        write(out, results, arguments)
    show(results)
    return int(any(r["status"] != "ok" or r["verdict"] == "reject" for r in results))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("problems", nargs="*", type=Path, help="default: the founding problems")
    parser.add_argument("--target", help="as for `fusewright optimize`; default: by the device")
    parser.add_argument("--budget", type=float, default=540.0, help="seconds for everything")
    parser.add_argument("--baselines", default="eager,compile")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--no-verify", action="store_true")
    parser.add_argument("--no-imports", action="store_true", help="do not time the first import")
    parser.add_argument("--jobs", type=int, default=1, help="files written at a time")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    chosen = parser.parse_args()
    chosen.target = chosen.target or default_target()
    return chosen


def default_target() -> str:
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    major, minor = torch.cuda.get_device_capability()
    return {(9, 0): "cuda:sm_90a", (8, 0): "cuda:sm_80"}.get((major, minor), "cuda")


def cli_step(command: str, options: Sequence[str], timeout: float) -> Callable[..., dict[str, Any]]:
    """A callable that runs `fusewright COMMAND` in a process of its own.

    optimize: called with (problem, out_file); others with (problem, out_file) as two files. The
    status 1 of `verify` is a verdict and no failure. Raises FusewrightError for a crash
    or a time-out.
    """

    def run(problem: Path, new: Path) -> dict[str, Any]:
        files = [str(problem), *(["-o"] if command == "optimize" else []), str(new)]
        arguments = [command, *files, *options, "--json"]
        ended = watch(fusewright_command(arguments), timeout)
        if ended.stdout.strip().startswith("{") and ended.status is not None and ended.status >= 0:
            found = json.loads(ended.stdout)
            if "error" not in found or command == "verify":
                return found
            raise FusewrightError(str(found["error"]))
        last = f"\n{ended.stderr_tail}" if ended.stderr_tail else ""
        raise FusewrightError(f"`fusewright {command}` {ended.describe()}{last}")

    return run


def run_optimize(
    problem: Path, new: Path, arguments: argparse.Namespace, limit: float
) -> dict[str, Any]:
    """The start of a problem's result: the file is written, or it says why not."""
    result: dict[str, Any] = {"problem": problem.stem, "status": "ok", "verdict": None}
    start = time.monotonic()
    try:
        # Verify and bench follow as steps of their own, so `optimize` need not check.
        options = ["--target", arguments.target, "--no-check"]
        result["explain"] = cli_step("optimize", options, limit)(problem, new)
    except FusewrightError as error:
        print(f"{problem.stem}: optimize: {error}", file=sys.stderr, flush=True)
        result |= {"status": "optimize failed", "error": str(error)}
    return result | {"optimize_s": time.monotonic() - start}


def run_problem(
    problem: Path,
    new: Path,
    made: dict[str, Any],
    arguments: argparse.Namespace,
    own: Deadline,
) -> dict[str, Any]:
    """One problem's result; whatever fails is recorded with its message, never raised."""
    result, step = dict(made), "verify"
    if result["status"] != "ok":
        return result
    try:
        if not arguments.no_verify:
            result |= run_verify(problem, new, arguments, own)
        step = "bench"
        result["bench"] = run_bench(problem, new, result["explain"], arguments, own)
    except FusewrightError as error:
        print(f"{problem.stem}: {step}: {error}", file=sys.stderr, flush=True)
        result |= {"status": f"{step} failed", "error": str(error)}
    return result


def run_verify(
    problem: Path, new: Path, arguments: argparse.Namespace, own: Deadline
) -> dict[str, Any]:
    """The verdict, or why there is none: an unverified file is still timed, and says so."""
    device = arguments.target.split(":")[0]
    start = time.monotonic()
    try:
        found = cli_step("verify", ["--device", device], VERIFY_SHARE * own.left())(problem, new)
    except FusewrightError as error:
        print(f"{problem.stem}: verify: {error}", file=sys.stderr, flush=True)
        return {"verdict": "none", "verify_error": str(error)}
    seconds = time.monotonic() - start
    return {"verdict": found.get("verdict"), "verify": found, "verify_s": seconds}


def run_bench(
    problem: Path,
    new: Path,
    explained: dict[str, Any],
    arguments: argparse.Namespace,
    own: Deadline,
) -> dict[str, Any]:
    left = max(own.left(), LEAST_LEFT_S)
    report = bench(
        problem,
        new,
        device=arguments.target.split(":")[0],
        baselines=arguments.baselines.split(","),
        rounds=arguments.rounds,
        seconds=min(LONGEST_TIMING_S, TIMING_SHARE * left),
        floor=explained,
        imports=not arguments.no_imports,
        timeout=left,
    )
    return report.to_json()


def write(out: Path, results: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    """Writes all results so far to `<device>-<date>.json`."""
    environments = [r["bench"]["environment"] for r in results if "bench" in r]
    device = environments[0]["device"] if environments else "unknown"
    now = datetime.datetime.now(datetime.timezone.utc)
    slug = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
    record = {
        "device": device,
        "date": now.isoformat(timespec="seconds"),
        "target": arguments.target,
        "scale": os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE", "full"),
        "command": " ".join(["python", "benchmarks/run_founding.py", *sys.argv[1:]]),
        "python": platform.python_version(),
        "environment": environments[0] if environments else None,
        "results": results,
    }
    path = out / f"{slug}-{now.date()}.json"
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=1))
    partial.replace(path)
    print(f"written: {path}", file=sys.stderr, flush=True)


def show(results: list[dict[str, Any]]) -> None:
    """Prints the table that a reader wants last."""
    table = Table(title="milliseconds, medians of the primary mode")
    for column in ("problem", "status", "verdict", "eager", "compile", "ours", "speed-up", "floor"):
        table.add_column(column)
    for result in results:
        table.add_row(result["problem"], result["status"], result["verdict"], *cells(result))
    Console(width=140).print(table)


def cells(result: dict[str, Any]) -> list[str]:
    if "bench" not in result:
        return [""] * 5
    found = result["bench"]
    times = [found["times_ms"].get(name) for name in ("eager", "compile", "candidate")]
    floor = found["fraction_of_floor"]
    return [
        *("" if t is None else format_ms(t) for t in times),
        f"{found['speedup']['eager']:.3g}x {found['verdict']}",
        "" if floor is None else f"{floor:.0%}",
    ]


if __name__ == "__main__":
    sys.exit(main())
