"""Times every tile of a small grid for the kernels of example problems, on the GPU at hand.

    PYTHONPATH=src python benchmarks/tile_sweep.py [--out FILE] [EXAMPLE ...]

This is how the numbers in `schedule/tile.py` were chosen. For each kernel of each example's program
the tile is overridden, the program compiled for sm_90a, timed with an L2 flush before each call,
interleaved over all tiles, and its result compared with eager. Prints one line per tile, best
first; the tile that the scheduler chose by itself is marked.
"""

import argparse
import ctypes
import itertools
import json
import statistics
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import torch

from fusewright.capture import capture
from fusewright.context import Context
from fusewright.emit.segment import segments
from fusewright.emit.unit import translation_unit
from fusewright.ir.kernel import Kernel, Program, Tile
from fusewright.problem import load_problem
from fusewright.rewrite import rewrite
from fusewright.run.build import compile_cuda
from fusewright.schedule import schedule
from fusewright.target.arch import arch

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
DEFAULT = ("sigmoid", "pointwise_chain", "sum_reduction", "softmax_rows", "layer_norm")
GRIDS: dict[str, list[dict[str, int]]] = {
    "elementwise": [
        {"threads": t, "vector": 4, "items": n}
        for t, n in itertools.product((128, 256, 512), (1, 2, 4))
    ],
    "row_reduce": [
        {"lanes": w, "threads": max(w, 128), "items": n}
        for w, n in itertools.product((32, 64, 128, 256, 512, 1024), (2, 4))
    ],
    "column_stream": [{"threads": 256}, {"threads": 512}],
    "contraction": [],
    "column_reduce": [
        {"threads": t, "lanes": w, "items": n, "vector": v}
        for t, w, n, v in itertools.product((256, 512, 1024), (2, 4, 8, 16), (8, 16, 32), (1, 4))
    ],
}


def scheduled(name: str) -> Program:
    """The program of an example on sm_90a, nothing allocated."""
    problem, context = load_problem(EXAMPLES / f"{name}.py", fake=True), Context()
    with problem.as_the_file_left_torch():
        graph = capture(problem, context)
    graph, _ = rewrite(graph, context)
    return schedule(graph, context, arch("cuda:sm_90a"))


def variants(program: Program) -> list[tuple[str, Tile, Program]]:
    """(kernel, tile, program with that tile), the chosen tile first."""
    out = []
    for k in (s for s in program.steps if isinstance(s, Kernel)):
        tiles = [replace(k.tile, **change) for change in GRIDS[k.anchor]]
        for tile in dict.fromkeys((k.tile, *tiles)):
            steps = tuple(replace(s, tile=tile) if s is k else s for s in program.steps)
            out.append((k.name, tile, replace(program, steps=steps)))
    return out


def runner(program: Program, memory: dict[str, torch.Tensor]) -> Callable[[], None]:
    """Compiles a program of kernels only and binds its entry points to memory."""
    target = arch("cuda:sm_90a")
    binary = compile_cuda(translation_unit(program, target), "sm_90a")
    library = ctypes.CDLL(str(binary.path))
    calls = []
    for segment in segments(program):
        pointers = [ctypes.c_void_p(memory[b.name].data_ptr()) for b in segment.buffers]
        calls.append((getattr(library, segment.entry), pointers))

    def run() -> None:
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        for function, pointers in calls:
            code = function(*pointers, stream)
            if code:
                raise RuntimeError(f"launch failed with CUDA error {code}")

    return run


def timed(run: Callable[[], object], flush: torch.Tensor) -> float:
    """Milliseconds of one call with a cold L2."""
    flush.zero_()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def sweep(name: str, rounds: int) -> dict:
    """Times all tiles of one example beside eager."""
    program = scheduled(name)
    torch.manual_seed(0)
    with torch.device("cuda"):
        problem = load_problem(EXAMPLES / f"{name}.py", fake=False)
    module = problem.module.cuda()
    given = [x.cuda() if isinstance(x, torch.Tensor) else x for x in problem.inputs]
    values = {b.name: None for b in program.buffers}
    tensors = {k.replace(".", "_"): v for k, v in module.state_dict().items()}
    tensors |= dict(zip([b.name for b in program.buffers if b.role == "input"], given, strict=True))
    memory = {
        b: tensors[b] if b in tensors else torch.full(
            (program.buffer(b).size,), float("nan"), device="cuda"
        )
        for b in values
    }
    flush = torch.empty(64 << 20, device="cuda")
    tiles = variants(program)
    with ThreadPoolExecutor(12) as pool:
        runs = list(pool.map(lambda v: runner(v[2], memory), tiles))
    with torch.no_grad():
        expected = module(*given).double().flatten()
        errors = []
        for run in runs:
            out = memory[program.returns[0].buffer]
            out.fill_(float("nan"))
            run()
            torch.cuda.synchronize()
            errors.append(float((out.flatten().double() - expected).norm() / expected.norm()))
        times: list[list[float]] = [[] for _ in range(len(runs) + 1)]
        for _ in range(rounds):
            for k, run in enumerate([*runs, lambda: module(*given)]):
                times[k].append(timed(run, flush))
    moved = sum(b.nbytes for b in program.buffers if b.role != "temp")
    rows = [
        {"kernel": kernel, "tile": asdict(tile), "ms": statistics.median(t), "error": e}
        for (kernel, tile, _), t, e in zip(tiles, times, errors, strict=False)
    ]
    eager = statistics.median(times[-1])
    chosen = rows[0]
    print(f"{name}: eager {eager:.4f} ms, {moved / eager / 1e6:.0f} GB/s", flush=True)
    for row in sorted(rows, key=lambda r: r["ms"]):
        mark = "*" if row is chosen else " "
        rate = moved / row["ms"] / 1e6
        print(f" {mark}{row['ms']:.4f} ms {rate:5.0f} GB/s x{eager / row['ms']:.3f} "
              f"err {row['error']:.1e} {row['kernel']} {row['tile']}", flush=True)
    return {"example": name, "eager_ms": eager, "bytes": moved, "tiles": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("examples", nargs="*", default=DEFAULT)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    results = []
    for name in given.examples:
        results.append(sweep(name, given.rounds))
        torch.cuda.empty_cache()
    if given.out:
        given.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
