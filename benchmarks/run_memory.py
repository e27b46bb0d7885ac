"""Times problems against eager and torch.compile on one device; writes one JSON.

    PYTHONPATH=src python benchmarks/run_memory.py --out benchmarks/results/memory_h100.json
    PYTHONPATH=src python benchmarks/run_memory.py loss_mse softmax_bf16 --compile
    PYTHONPATH=src python benchmarks/run_memory.py --target cpu --compile --jobs 2 --rounds 15
    PYTHONPATH=src python benchmarks/run_memory.py level1/*.py --compile --trials 5 --seconds 0.5

On a GPU the problems are the files of benchmarks/problems, on a CPU the rows of cpu_problems.py;
any other problem file can be named by its path.

Built for a short lease of a device: files are emitted and compiled by several processes at once,
then one process takes one problem after the other. Each round times every subject in turn, on a GPU
after a 256 MB flush of the cache; the result is the median. Correctness here is one comparison
with eager on fresh data (relative L2 error); `fusewright verify` is the real check. "fraction" is
compulsory bytes (inputs, outputs and written buffers once) / time / the copy rate of the target.
"""

import argparse
import gc
import importlib.util
import json
import math
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from cpu_problems import CPU_PROBLEMS, problem_text

from fusewright.options import Options
from fusewright.pipeline import compile_problem
from fusewright.problem import load_problem
from fusewright.target.arch import arch

PROBLEMS = Path(__file__).resolve().parent / "problems"
FLUSH_BYTES = 256 << 20
# Rounds of a problem that are made however long they take.
FEWEST_ROUNDS = 3
# KernelBench's bound on the relative and on the absolute difference to eager.
TOLERANCE = 1e-4
# Values compared at a time: the float64 copies of whole results would not fit beside the data.
SLICE = 1 << 26


def main() -> int:
    """Emits, compiles, checks and times; returns the exit status."""
    arguments = parse_arguments()
    files = Path(arguments.files or tempfile.mkdtemp())
    files.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str((files / "inductor").resolve()))
    names = arguments.problems or every_problem(arguments.target)
    jobs = [(n, files, arguments.target, arguments.compile) for n in names]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.jobs, mp_context=spawn) as pool:
        failures = dict(zip(names, pool.map(prepared, jobs), strict=True))
    results = []
    start = time.monotonic()
    for name in names:
        left = arguments.budget - (time.monotonic() - start)
        result: dict[str, Any] = {"problem": title(name)}
        if failures[name]:
            result["error"] = failures[name]
        elif left < 0:
            result["error"] = "not run: the time was up"
        else:
            result |= measured(name, files, arguments)
        results.append(result)
        print(json.dumps(result), flush=True)
        write(arguments, results)
    return int(any("error" in r for r in results))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("problems", nargs="*", help="names or files of problems; default: all")
    parser.add_argument("--target", default="cuda:sm_90a")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one problem's rounds")
    parser.add_argument("--trials", type=int, default=0, help="of KernelBench's check: allclose")
    parser.add_argument("--compile", action="store_true", help="time torch.compile, too")
    parser.add_argument("--jobs", type=int, default=12)
    parser.add_argument("--budget", type=float, default=1e9, help="seconds for the measurements")
    parser.add_argument("--files", help="folder for the emitted files; those there are used")
    parser.add_argument("--out", type=Path, default=Path("memory.json"))
    return parser.parse_args()


def every_problem(target: str) -> list[str]:
    """The names of all problems for a target."""
    if target == "cpu":
        return [name for name, _, _ in CPU_PROBLEMS]
    return sorted(p.stem for p in PROBLEMS.glob("*.py"))


def title(problem: str) -> str:
    """A problem's name in the record; a file's is that of its folder and its own."""
    path = Path(problem)
    return f"{path.parent.name}_{path.stem}" if path.suffix == ".py" else problem


def problem_file(name: str, files: Path, target: str) -> Path:
    """The file of a problem; that of a row of the table is written on the way."""
    if name.endswith(".py"):
        return Path(name)
    if target != "cpu":
        return PROBLEMS / f"{name}.py"
    path = files / f"{name}_problem.py"
    if not path.exists():
        path.write_text(problem_text(name))
    return path


def prepared(job: tuple[str, Path, str, bool]) -> str:
    """Emits a problem's file where there is none and compiles it; returns what went wrong.

    torch.compile's kernels are made, too, and found in its cache later.
    """
    name, files, target, compiles = job
    new, problem = files / f"{title(name)}.py", problem_file(name, files, target)
    try:
        if not new.exists():
            compiled = compile_problem(load_problem(problem, fake=True), Options(target=target))
            new.write_text(compiled.module_text)
        module = load(new)
        if hasattr(module, "_library"):
            module._library()
        if compiles:
            warm(load(problem), target)
    except Exception:  # recorded: the other problems are still worth measuring
        return traceback.format_exc()[-2000:]
    return ""


def warm(problem: Any, target: str) -> None:
    """Fills torch.compile's cache; where memory is short beside the others, it is filled later."""
    try:
        with device(target), torch.inference_mode(target != "cpu"), torch.no_grad():
            torch._dynamo.reset()
            torch.compile(problem.Model(*problem.get_init_inputs()))(*problem.get_inputs())
    except torch.OutOfMemoryError:
        pass
    finally:
        gc.collect()
        if target != "cpu":
            torch.cuda.empty_cache()


def device(target: str) -> torch.device:
    return torch.device(target.split(":")[0])


def load(path: Path) -> Any:
    """An executed Python file."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measured(name: str, files: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Times, error and fraction of one problem; what fails is the result."""
    try:
        with torch.inference_mode(arguments.target != "cpu"), torch.no_grad():
            problem = load(problem_file(name, files, arguments.target))
            return timed(problem, load(files / f"{title(name)}.py"), arguments)
    except Exception as error:  # the other problems are still worth measuring
        return {"error": f"{type(error).__name__}: {error}"[:2000]}
    finally:
        gc.collect()
        if arguments.target != "cpu":
            torch.cuda.empty_cache()


def timed(problem: Any, new: Any, arguments: argparse.Namespace) -> dict[str, Any]:
    torch.manual_seed(1)
    with device(arguments.target):
        inputs = problem.get_inputs()
        eager = problem.Model(*problem.get_init_inputs())
        ours = new.ModelNew(*problem.get_init_inputs())
    ours.load_state_dict(eager.state_dict())
    error, moved = compared(eager, ours, inputs)
    passed = trials(problem, eager, ours, arguments)
    subjects = {"eager": eager, "ours": ours}
    if arguments.compile:
        torch._dynamo.reset()
        subjects["compile"] = torch.compile(eager)
    measure = medians_cpu if arguments.target == "cpu" else medians_cuda
    times = measure(subjects, inputs, arguments.rounds, arguments.seconds)
    return {
        "ms": {k: round(v * 1e3, 4) for k, v in times.items()},
        "speedup": {k: round(v / times["ours"], 3) for k, v in times.items() if k != "ours"},
        "fraction": fraction(moved / times["ours"], arguments.target),
        "bytes": moved,
        "error": None if error < 1e-2 else f"differs from eager: {error}",
        "relative_difference_to_eager": error,
        **passed,
    }


def trials(
    problem: Any, eager: Any, ours: Any, arguments: argparse.Namespace
) -> dict[str, list[bool]]:
    """KernelBench's own check, as often as asked for: inputs drawn anew, `allclose` to eager."""
    passed: list[bool] = []
    for seed in range(arguments.trials):
        torch.manual_seed(seed)
        with device(arguments.target):
            inputs = problem.get_inputs()
        results = [list(tensors(seeded(model, inputs))) for model in (eager, ours)]
        near = (torch.allclose(a, b, TOLERANCE, TOLERANCE) for a, b in zip(*results, strict=True))
        passed.append(all(near))
    return {"kernelbench_check": passed} if passed else {}


def seeded(model: Any, inputs: list[Any]) -> Any:
    """A call whose random numbers are those of every other such call."""
    torch.manual_seed(0)
    return model(*inputs)


def fraction(rate: float, target: str) -> float | None:
    """Of the target's copy rate; that of CPUs is not one figure."""
    return None if target == "cpu" else round(rate / arch(target).copy_rate, 3)


def compared(eager: Any, ours: Any, inputs: list[Any]) -> tuple[float, int]:
    """The largest relative difference of a result or a buffer, and the compulsory bytes."""
    expected, found = (list(tensors(seeded(model, inputs))) for model in (eager, ours))
    state = dict(eager.named_buffers())
    expected += state.values()
    found += [dict(ours.named_buffers())[key] for key in state]
    error = max(relative_error(a, b) for a, b in zip(found, expected, strict=True))
    given = (x for x in inputs if isinstance(x, torch.Tensor))
    return error, sum(x.nbytes for x in (*given, *expected, *eager.parameters()))


def tensors(result: Any) -> Iterator[torch.Tensor]:
    """The tensors of a result that may be a tuple."""
    if isinstance(result, torch.Tensor):
        yield result
    else:
        yield from result


def medians_cpu(
    subjects: dict[str, Any], inputs: list[Any], rounds: int, limit_s: float
) -> dict[str, float]:
    """Seconds per call, the subjects in turn in every round, in another order each time."""
    samples: dict[str, list[float]] = {name: [] for name in subjects}
    order = list(subjects)
    for name in order * 2:
        subjects[name](*inputs)
    end = time.perf_counter() + limit_s
    for done in range(rounds):
        if done >= FEWEST_ROUNDS and time.perf_counter() > end:
            break
        for name in order:
            samples[name].append(seconds(lambda model=subjects[name]: model(*inputs)))
        order.append(order.pop(0))
    return {name: statistics.median(found) for name, found in samples.items()}


def seconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def medians_cuda(
    subjects: dict[str, Any], inputs: list[Any], rounds: int, limit_s: float
) -> dict[str, float]:
    """Seconds per call, the subjects in turn in every round."""
    flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    samples: dict[str, list[float]] = {name: [] for name in subjects}
    for model in subjects.values():
        model(*inputs)
        model(*inputs)
    last = time.perf_counter() + limit_s
    for done in range(rounds):
        if done >= FEWEST_ROUNDS and time.perf_counter() > last:
            break
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


def write(arguments: argparse.Namespace, results: list[dict[str, Any]]) -> None:
    """The record so far."""
    cpu = arguments.target == "cpu"
    flushed = "" if cpu else ", cache flushed before each call"
    record = {
        "device": processor() if cpu else torch.cuda.get_device_name(),
        "threads": torch.get_num_threads() if cpu else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(["python", "benchmarks/run_memory.py", *sys.argv[1:]]),
        "target": arguments.target,
        "copy_rate": None if cpu else arch(arguments.target).copy_rate,
        "method": f"median of rounds, interleaved{flushed}",
        "summary": summary(results),
        "results": results,
    }
    partial = arguments.out.with_suffix(".partial")
    partial.write_text(json.dumps(record, indent=1) + "\n")
    partial.replace(arguments.out)


def processor() -> str:
    """The CPU's name and how many of its cores there are."""
    found = Path("/proc/cpuinfo")
    lines = found.read_text().splitlines() if found.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Geometric means of the speed-ups, and what is more than 5 % slower than a baseline."""
    out: dict[str, Any] = {}
    for baseline in ("eager", "compile"):
        found = {r["problem"]: r.get("speedup", {}).get(baseline) for r in results}
        known = {k: v for k, v in found.items() if v}
        if known:
            mean = math.exp(statistics.fmean(math.log(v) for v in known.values()))
            slower = {k: v for k, v in known.items() if v < 1 / 1.05}
            figures = {"geometric_mean": round(mean, 3), "problems": len(known)}
            out[baseline] = {**figures, "slower": slower}
    return out


if __name__ == "__main__":
    sys.exit(main())
