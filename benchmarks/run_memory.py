"""Times the memory-bound problems of benchmarks/problems against eager on one GPU; writes one JSON.

    PYTHONPATH=src python benchmarks/run_memory.py --out benchmarks/results/memory_h100.json
    PYTHONPATH=src python benchmarks/run_memory.py loss_mse softmax_bf16 --compile

Built for a short lease of a device: files are emitted and compiled by several processes at once,
then one process takes one problem after the other. Each round times eager and the emitted file in
turn after a 256 MB flush of the cache; the result is the median. Correctness here is one comparison
with eager on fresh data (relative L2 error); `fusewright verify` is the real check. "fraction" is
compulsory bytes (inputs, outputs and written buffers once) / time / the copy rate of the target.
"""

import argparse
import gc
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from fusewright.target.arch import arch

PROBLEMS = Path(__file__).resolve().parent / "problems"
TARGET = "cuda:sm_90a"
FLUSH_BYTES = 256 << 20
# Values compared at a time: the float64 copies of whole results would not fit beside the data.
SLICE = 1 << 26


def main() -> int:
    """Emits, compiles, checks and times; returns the exit status."""
    arguments = parse_arguments()
    names = arguments.problems or sorted(p.stem for p in PROBLEMS.glob("*.py"))
    files = Path(arguments.files or tempfile.mkdtemp())
    files.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        failures = dict(zip(names, pool.map(lambda n: prepared(n, files), names), strict=True))
    results = []
    start = time.monotonic()
    for name in names:
        left = arguments.budget - (time.monotonic() - start)
        result: dict[str, Any] = {"problem": name}
        if failures[name]:
            result["error"] = failures[name]
        elif left < 0:
            result["error"] = "not run: the time was up"
        else:
            result |= measured(name, files / f"{name}.py", arguments)
        results.append(result)
        print(json.dumps(result), flush=True)
        write(arguments.out, results)
    return int(any("error" in r for r in results))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("problems", nargs="*", help="names in benchmarks/problems; default: all")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--compile", action="store_true", help="time torch.compile, too")
    parser.add_argument("--jobs", type=int, default=12)
    parser.add_argument("--budget", type=float, default=1e9, help="seconds for the measurements")
    parser.add_argument("--files", help="folder for the emitted files; those there are used")
    parser.add_argument("--out", type=Path, default=Path("memory.json"))
    return parser.parse_args()


def prepared(name: str, files: Path) -> str:
    """Emits a problem's file where there is none and compiles it; returns what went wrong."""
    new = files / f"{name}.py"
    python = [sys.executable, "-c"]
    emit = "import sys; from fusewright.cli import main; sys.exit(main(sys.argv[1:]))"
    options = ["optimize", str(PROBLEMS / f"{name}.py"), "--target", TARGET, "--no-check"]
    build = (
        "import importlib.util as u, sys; s = u.spec_from_file_location('new', sys.argv[1]); "
        "m = u.module_from_spec(s); s.loader.exec_module(m); m._library()"
    )
    steps = [[*python, build, str(new)]]
    if not new.exists():
        steps.insert(0, [*python, emit, *options, "-o", str(new)])
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True)
        if done.returncode:
            return done.stderr.strip()[-2000:]
    return ""


def load(path: Path) -> Any:
    """An executed Python file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measured(name: str, new: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Times, error and fraction of one problem; what fails is the result."""
    try:
        with torch.inference_mode():
            return timed(load(PROBLEMS / f"{name}.py"), load(new), arguments)
    except Exception as error:  # the other problems are still worth measuring
        return {"error": f"{type(error).__name__}: {error}"[:2000]}
    finally:
        gc.collect()
        torch.cuda.empty_cache()


def timed(problem: Any, new: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    torch.manual_seed(1)
    with torch.device("cuda"):
        inputs = problem.get_inputs()
        eager = problem.Model(*problem.get_init_inputs())
        ours = new.ModelNew(*problem.get_init_inputs())
    ours.load_state_dict(eager.state_dict())
    expected = eager(*inputs)
    error = relative_error(ours(*inputs), expected)
    state = dict(eager.named_buffers())
    for key, value in ours.named_buffers():
        error = max(error, relative_error(value, state[key]))
    moved = sum(x.nbytes for x in (*inputs, expected, *eager.parameters()))
    del expected
    subjects = {"eager": eager, "ours": ours}
    if arguments.compile:
        torch._dynamo.reset()
        subjects["compile"] = torch.compile(eager)
    times = medians(subjects, inputs, arguments.rounds)
    floor = moved / arch(TARGET).copy_rate
    return (
        {
            "ms": {k: round(v * 1e3, 4) for k, v in times.items()},
            "fraction": round(floor / times["ours"], 3),
            "bytes": moved,
            "error": None,
            "relative_difference_to_eager": error,
        }
        if error < 1e-2
        else {"error": f"differs from eager: {error}"}
    )


def medians(subjects: dict[str, Any], inputs: list[Any], rounds: int) -> dict[str, float]:
    """Seconds per call, the subjects in turn in every round."""
    flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    samples: dict[str, list[float]] = {name: [] for name in subjects}
    for model in subjects.values():
        model(*inputs)
        model(*inputs)
    for _ in range(rounds):
        for name, model in subjects.items():
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            flush.zero_()
            torch.cuda._sleep(200_000)  # the host has launched the call before the device is free
            begin.record()
            model(*inputs)
            end.record()
            end.synchronize()
            samples[name].append(begin.elapsed_time(end) * 1e-3)
    return {name: statistics.median(found) for name, found in samples.items()}


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """|found - expected| / |expected| in the Euclidean norm; infinite where only one is finite."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return float("inf")
    difference = size = 0.0
    for a, b in zip(found.flatten().split(SLICE), expected.flatten().split(SLICE), strict=True):
        wide = b.double()
        difference += float((a.double() - wide).square().sum())
        size += float(wide.square().sum())
    ratio = (difference / size) ** 0.5 if size else difference
    return ratio if ratio == ratio else float("inf")


def write(out: Path, results: list[dict[str, Any]]) -> None:
    """The record so far."""
    record = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "target": TARGET,
        "copy_rate": arch(TARGET).copy_rate,
        "method": "median of rounds, interleaved, cache flushed before each call",
        "results": results,
    }
    partial = out.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=1) + "\n")
    partial.replace(out)


if __name__ == "__main__":
    sys.exit(main())
