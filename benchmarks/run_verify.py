"""Verifies, times and sanitises the examples on this machine; one JSON for each kind of result.

    PYTHONPATH=src python benchmarks/run_verify.py --revision $(git rev-parse --short HEAD)
    PYTHONPATH=src python benchmarks/run_verify.py --steps founding sigmoid sum_reduction

Needs a checkout, torch with CUDA and a GPU, nothing installed. Without names it takes all examples.
Steps: `imports` (the founding files, each built in an empty folder with nothing else running),
`founding` (verified at full scale, one by one), `small` (all of them at the small scale, --jobs at
a time), `sanitize` (some of each kind under compute-sanitizer), `bench` (one by one). A result is
written as soon as its step is done. Exit status 1 if a file was not accepted.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from run_founding import FOUNDING

ROOT = Path(__file__).resolve().parents[1]
# A split product, row reductions, a column stream, turned tiles, a scan, a Hopper product.
SANITIZED = (
    "gemm_sigmoid_scaling_residual",
    "softmax_rows",
    "sum_reduction",
    "views_gallery",
    "gather_scan_sort",
    "matmul_sigmoid_sum",
    "group_norm_swish",
    "batch_norm_train",
)
STEPS = ("imports", "founding", "small", "sanitize", "bench")
TARGET = "cuda:sm_90a"
LONGEST_S = 250.0
FIRST_IMPORT = """
import sys, time
from torch.utils import cpp_extension
print("ready", flush=True)
sys.stdin.readline()
start = time.perf_counter()
space = {"__name__": "emitted"}
exec(compile(open(sys.argv[1]).read(), sys.argv[1], "exec"), space)
if "_library" in space:
    space["_library"]()
print(time.perf_counter() - start, flush=True)
"""
Json = dict[str, Any]


def main() -> int:
    """Runs the chosen steps; returns the exit status."""
    chosen = parse_arguments()
    names = chosen.names or sorted(p.stem for p in (ROOT / "examples").glob("*.py"))
    founding = [name for name in FOUNDING if name in names]
    wanted = [(name, "small") for name in names]
    if {"imports", "founding"} & set(chosen.steps):
        wanted = [(name, "full") for name in founding] + wanted
    if not {"small", "sanitize", "bench"} & set(chosen.steps):
        wanted = [(name, "full") for name in founding]
    with ThreadPoolExecutor(chosen.jobs) as pool:
        list(pool.map(lambda what: emit(chosen.out, *what), wanted))
    steps: dict[str, Callable[[], list[Json]]] = {
        "imports": lambda: first_imports(chosen.out, founding),
        "founding": lambda: [verify(chosen.out, name, "full") for name in founding],
        "small": lambda: in_parallel(chosen, names, "small"),
        "sanitize": lambda: in_parallel(chosen, [n for n in SANITIZED if n in names], "sanitize"),
        "bench": lambda: benches(chosen, names),
    }
    accepted = True
    for step in chosen.steps:
        results = steps[step]()
        write(chosen, step, results)
        accepted &= all(r.get("verdict", "accept") == "accept" for r in results)
    return int(not accepted)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="examples; default: all")
    parser.add_argument("--steps", default=",".join(STEPS), help="with commas")
    parser.add_argument("--jobs", type=int, default=max(2, (os.cpu_count() or 2) * 3 // 4))
    parser.add_argument("--revision", default="", help="of the package, for the record")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "verify")
    chosen = parser.parse_args()
    chosen.steps = [step for step in chosen.steps.split(",") if step in STEPS]
    return chosen


def problem(name: str) -> str:
    return f"examples/{name}.py"


def emitted(out: Path, name: str, scale: str) -> Path:
    return out / "full" / f"{name}.py" if scale == "full" else out / "small" / f"{name}.py"


def fusewright(arguments: Sequence[str], scale: str) -> tuple[Json, float]:
    """`fusewright ... --json` in a process of its own: the object that it printed, and seconds."""
    environment = os.environ | {"FUSEWRIGHT_EXAMPLE_SCALE": "full" if scale == "full" else "small"}
    command = [sys.executable, "-m", "fusewright", *arguments, "--json"]
    start = time.monotonic()
    try:
        ended = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LONGEST_S
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no end within {LONGEST_S:g} s"}, LONGEST_S
    seconds = round(time.monotonic() - start, 1)
    if not ended.stdout.strip().startswith("{"):
        return {"error": ended.stderr[-2000:]}, seconds
    return json.loads(ended.stdout), seconds


def emit(out: Path, name: str, scale: str) -> None:
    new = emitted(out, name, scale)
    new.parent.mkdir(parents=True, exist_ok=True)
    if new.exists():
        return
    arguments = ["optimize", problem(name), "-o", str(new), "--target", TARGET, "--no-check"]
    made, seconds = fusewright(arguments, scale)
    print(f"{name} {scale}: {made.get('error', 'written')} in {seconds} s", flush=True)


def verify(out: Path, name: str, scale: str) -> Json:
    """The verdict with what is not simply "pass"."""
    options = ["--sanitize"] if scale == "sanitize" else []
    files = [problem(name), str(emitted(out, name, scale))]
    found, seconds = fusewright(["verify", *files, "--device", "cuda", *options], scale)
    checks = found.get("checks", [])
    shown = [c for c in checks if c["outcome"] != "pass" or c["name"].startswith("sanitize/")]
    result = {"problem": name, "verdict": found.get("verdict", "none"), "seconds": seconds}
    result |= {k: found[k] for k in ("accuracy", "error") if k in found}
    result["checks_passed"] = sum(c["outcome"] == "pass" for c in checks)
    keys = ("name", "outcome", "detail")
    result["other_checks"] = [{key: check[key] for key in keys} for check in shown]
    print(f"verify {name} {scale}: {result['verdict']} in {seconds} s", flush=True)
    return result


def in_parallel(chosen: argparse.Namespace, names: Sequence[str], scale: str) -> list[Json]:
    with ThreadPoolExecutor(chosen.jobs) as pool:
        return list(pool.map(lambda name: verify(chosen.out, name, scale), names))


def benches(chosen: argparse.Namespace, names: Sequence[str]) -> list[Json]:
    found: list[Json] = []
    for name in names:
        found.append(bench(chosen.out, name))
        write(chosen, "bench", found)
    return found


def bench(out: Path, name: str) -> Json:
    files = [problem(name), str(emitted(out, name, "small"))]
    options = ["--device", "cuda", "--baselines", "eager", "--rounds", "30", "--seconds", "2"]
    found, seconds = fusewright(["bench", *files, *options], "small")
    kept = ("error", "times_ms", "speedup", "findings", "fraction_of_floor", "latency_ms")
    result = {"problem": name} | {key: found[key] for key in kept if key in found}
    print(f"bench {name}: {result.get('speedup', result.get('error'))} in {seconds} s", flush=True)
    return result


def first_imports(out: Path, names: Sequence[str]) -> list[Json]:
    """Seconds from the import of a file to its kernels, torch being there; one after another."""
    waiting: list[tuple[str, subprocess.Popen[str]]] = []
    for name in names:
        environment = os.environ | {"TORCH_EXTENSIONS_DIR": str(out / "extensions" / name)}
        command = [sys.executable, "-c", FIRST_IMPORT, str(emitted(out, name, "full"))]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        waiting.append((name, subprocess.Popen(command, env=environment, **pipes)))
    for _, process in waiting:
        assert process.stdout is not None
        process.stdout.readline()
    found: list[Json] = []
    for name, process in waiting:
        printed, _ = process.communicate("go\n")
        found.append({"problem": name, "seconds": round(float(printed.split()[-1]), 2)})
        print(f"first import of {name}: {found[-1]['seconds']} s", flush=True)
    return found


def write(chosen: argparse.Namespace, step: str, results: list[Json]) -> None:
    import torch

    record = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "python": sys.version.split()[0],
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "revision": chosen.revision,
        "scale": "full" if step in ("imports", "founding") else "small",
        "target": TARGET,
        "command": f"python benchmarks/run_verify.py --steps {step}",
        "results": results,
    }
    (chosen.out / f"{step}.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
