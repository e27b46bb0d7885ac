"""Times many problems on one GPU: emitted files against eager, quickly; writes JSON and a table.

    PYTHONPATH=src python benchmarks/survey.py FOLDER... --out RESULT.json

A survey, not a verdict: inputs are made on the device, the candidate is compared with eager alone,
and a few interleaved rounds are timed with CUDA events after an L2 flush. `fusewright verify` and
`fusewright bench` say more of one problem in minutes than this does in a second. Files are emitted
and built by one process per core first; a crash of one problem ends only that problem.
"""

import argparse
import datetime
import importlib.util
import json
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

FLUSH_BYTES = 128 << 20
ROUNDS, SECONDS = 8, 0.4
COPY_RATE = 3.03e12  # bytes per second of an H100


def main() -> int:
    chosen = parse_arguments()
    if chosen.worker:
        return work(chosen)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    files = sorted(f for p in chosen.problems for f in (p.glob("*.py") if p.is_dir() else [p]))
    new = chosen.out.parent / "files"
    new.mkdir(exist_ok=True)
    start = time.monotonic()
    jobs = [(f, new / f"{key(f)}.py", chosen.target) for f in files]
    with multiprocessing.get_context("spawn").Pool(chosen.processes) as pool:
        built = dict(pool.imap_unordered(build, jobs))
    print(f"built {len(built)} in {time.monotonic() - start:.0f} s", flush=True)
    found = timed(files, new, built, chosen)
    write(chosen.out, found, chosen)
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("problems", nargs="*", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--target", default="cuda:sm_90a")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--budget", type=float, default=1e9, help="seconds for the timings")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def key(problem: Path) -> str:
    return f"{problem.parent.name}_{problem.stem}"


def build(job: tuple[Path, Path, str]) -> tuple[str, dict[str, Any]]:
    """Emits one file and imports it once, which builds it."""
    from fusewright.options import Options
    from fusewright.pipeline import compile_problem
    from fusewright.problem import load_problem
    from fusewright.report import report

    problem, new, target = job
    try:
        start = time.monotonic()
        compiled = compile_problem(load_problem(problem, fake=True), Options(target=target))
        new.write_text(compiled.module_text)
        emitted = time.monotonic()
        module = load(new)
        if hasattr(module, "_library"):
            module._library()
        return key(problem), {
            "optimize_s": emitted - start,
            "build_s": time.monotonic() - emitted,
            **program(report(compiled)),
        }
    except Exception as error:  # recorded: a survey goes on
        return key(problem), {"error": f"{type(error).__name__}: {error}"[-2000:]}


def program(explained: dict[str, Any]) -> dict[str, Any]:
    """What a result says of the optimised program; `floor_ms` is of its compulsory bytes alone."""
    found = explained["optimized"]
    return {
        "kernels": [k["anchor"] for k in found["kernels"]],
        "library_calls": [c["function"] for c in found["library_calls"]],
        "extern_calls": [c["function"] for c in found["extern_calls"]],
        "flops": [explained["reference"]["flops"], found["flops"]],
        "bytes": [explained["reference"]["bytes"], found["bytes"]],
        "floor_ms": found["bytes"] / COPY_RATE * 1e3,
    }


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"survey_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def timed(
    files: list[Path], new: Path, built: dict[str, Any], chosen: argparse.Namespace
) -> list[dict[str, Any]]:
    """Each problem's record; a worker that dies is replaced for the problems after it."""
    end = time.monotonic() + chosen.budget
    todo = [f for f in files if "error" not in built[key(f)]]
    found = {k: {"problem": k, **v} for k, v in built.items()}
    log = chosen.out.with_suffix(".jsonl")
    while todo and time.monotonic() < end:
        log.write_text("")
        command = [sys.executable, __file__, "--worker", "--out", str(log)]
        command += ["--budget", str(end - time.monotonic()), *map(str, todo)]
        code = subprocess.run(command, check=False).returncode
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        for line in lines:
            found[line["problem"]] |= line
        done = {line["problem"] for line in lines}
        todo = [f for f in todo if key(f) not in done]
        if todo and code:
            found[key(todo[0])]["error"] = f"the worker ended with status {code}"
            todo = todo[1:]
        elif not code:
            break
        write(chosen.out, list(found.values()), chosen)
    return list(found.values())


def work(chosen: argparse.Namespace) -> int:
    """In a process of its own: times problems until one leaves the device unusable."""
    import torch

    end = time.monotonic() + chosen.budget
    for problem in chosen.problems:
        if time.monotonic() > end:
            return 0
        record: dict[str, Any] = {"problem": key(problem)}
        try:
            record |= measure(problem, chosen.out.parent / "files" / f"{key(problem)}.py")
        except Exception as error:  # recorded: a survey goes on
            record["error"] = f"{type(error).__name__}: {error}"[-1500:]
            record["trace"] = traceback.format_exc()[-1500:]
        with chosen.out.open("a") as f:
            f.write(json.dumps(record) + "\n")
        print(summary(record), flush=True)
        torch.cuda.empty_cache()
        torch.cuda.synchronize()
    return 0


def measure(problem: Path, new: Path) -> dict[str, Any]:
    """Milliseconds (medians) of eager and candidate, and the candidate's error against eager."""
    import torch

    reference, candidate = load(problem), load(new)
    with torch.no_grad(), torch.device("cuda"):
        torch.manual_seed(0)
        settings = reference.get_init_inputs()
        torch.manual_seed(1)
        eager = reference.Model(*settings)
        torch.manual_seed(1)
        ours = candidate.ModelNew(*settings)
        ours.load_state_dict(eager.state_dict())
        inputs = reference.get_inputs()
        error = difference(ours(*inputs), eager(*inputs))
        flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8)
        times: dict[str, list[float]] = {"eager": [], "candidate": []}
        start = time.monotonic()
        for _ in range(ROUNDS):
            for name, model in (("eager", eager), ("candidate", ours)):
                times[name].append(once(model, inputs, flush))
            if time.monotonic() - start > SECONDS:
                break
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "times_ms": medians,
        "speedup": medians["eager"] / medians["candidate"],
        "rounds": len(times["eager"]),
        "difference_from_eager": error,
    }


def once(model: Any, inputs: list[Any], flush: Any) -> float:
    import torch

    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    flush.zero_()
    torch.cuda.synchronize()
    begin.record()
    model(*inputs)
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end)


def difference(ours: Any, eager: Any) -> float:
    """The relative L2 distance of the results, the largest over all outputs."""
    import torch

    if isinstance(eager, torch.Tensor):
        assert ours.shape == eager.shape and ours.dtype == eager.dtype
        a, b = ours.flatten(), eager.flatten()
        top = bottom = 0.0
        for p, q in zip(a.split(1 << 26), b.split(1 << 26), strict=True):
            top += float((p.double() - q.double()).square().sum())
            bottom += float(q.double().square().sum())
        return (top / bottom) ** 0.5 if bottom else top**0.5
    pairs = zip(ours, eager, strict=True)
    return max(difference(p, q) for p, q in pairs)


def summary(record: dict[str, Any]) -> str:
    if "error" in record:
        return f"{record['problem'][:60]:60} {record['error'][:120]}"
    t = record["times_ms"]
    return (
        f"{record['problem'][:60]:60} eager {t['eager']:9.3f} ours {t['candidate']:9.3f} "
        f"{record['speedup']:7.2f}x  difference {record['difference_from_eager']:.1e}"
    )


def write(out: Path, results: list[dict[str, Any]], chosen: argparse.Namespace) -> None:
    import torch

    record = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "target": chosen.target,
        "command": "python benchmarks/survey.py " + " ".join(p.name for p in chosen.problems),
        "results": sorted(results, key=lambda r: natural(r["problem"])),
    }
    out.write_text(json.dumps(record, indent=1))
    out.with_suffix(".md").write_text(table(record))


def table(record: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        f"Emitted files against eager on one {record['device']}, torch {record['torch']}, "
        f"{record['date']}; medians in ms, cold L2. `{record['command']}`.",
        "",
        "| problem | eager | ours | speed-up | memory floor | difference | kernels | calls |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(row(r) for r in record["results"]), *totals(record), ""])


def natural(name: str) -> list[tuple[int, str]]:
    """A sort key in which 2 comes before 10."""
    return [(int(t) if t.isdigit() else -1, t) for t in re.findall(r"\d+|\D+", name)]


def row(r: dict[str, Any]) -> str:
    if "times_ms" not in r:
        return f"| {r['problem']} | {r.get('error', 'not timed')[:60]} | | | | | | |"
    t, calls = r["times_ms"], [*r["library_calls"], *r["extern_calls"]]
    cells = [
        r["problem"],
        f"{t['eager']:.3f}",
        f"{t['candidate']:.3f}",
        f"{r['speedup']:.2f}x",
        f"{r['floor_ms']:.3f}",
        f"{r['difference_from_eager']:.0e}",
        ", ".join(r["kernels"]) or "the model's own forward",
        ", ".join(c.removeprefix("torch.") for c in calls),
    ]
    return f"| {' | '.join(cells)} |"


def totals(record: dict[str, Any]) -> list[str]:
    """Geometric means by folder."""
    folders = dict.fromkeys(r["problem"].partition("_")[0] for r in record["results"])
    lines = [""]
    for f in folders:
        found = [r for r in record["results"] if r["problem"].startswith(f"{f}_")]
        speed = [r["speedup"] for r in found if "speedup" in r]
        faster = sum(s > 1 for s in speed)
        mean = statistics.geometric_mean(speed) if speed else float("nan")
        lines.append(f"{f}: {len(speed)} of {len(found)} timed, {faster} faster, {mean:.2f}x.")
    return lines


if __name__ == "__main__":
    sys.exit(main())
