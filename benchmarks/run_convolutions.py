"""Times convolutions alone on one GPU: eager's call, the library in channels-last memory, ours.

    PYTHONPATH=src python benchmarks/run_convolutions.py --out convolutions_h100.json

The shapes are those of convolutions.json beside this file. Ours is emitted whether it pays or not,
and, where channels are few, in the form as accurate as float32 too (`exact`). The rates of
target.products.H100_CONVS are fitted to this. Files are emitted and built by several processes,
then timed one after the other: medians of rounds after a flush of the cache. `kernels` are the
seconds of each kernel of ours by torch's profiler.
"""

import argparse
import gc
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from run_memory import load, medians_cuda, relative_error

from fusewright.options import Options, Precision
from fusewright.pipeline import compile_problem
from fusewright.problem import load_problem
from fusewright.schedule import convolutions

SHAPES = Path(__file__).resolve().parent / "convolutions.json"
TEXT = """import torch
import torch.nn.functional as F


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.randn({w}) * 0.05)

    def forward(self, x):
        return F.{function}(x, self.w, None, {arguments})


def get_inputs():
    return [torch.rand({x})]


def get_init_inputs():
    return []
"""
FORMS: dict[str, Precision] = {"ours": "match", "exact": "ieee"}
ROUNDS, SECONDS = 7, 0.5
Json = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("convolutions.json"))
    parser.add_argument("--jobs", type=int, default=16)
    arguments = parser.parse_args()
    files = Path(tempfile.mkdtemp())
    shapes: list[Json] = json.loads(SHAPES.read_text())
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.jobs, mp_context=spawn) as pool:
        built = list(pool.map(emitted, [(s, files) for s in shapes]))
    results = [shape | timed(files, s) for shape, s in zip(shapes, built, strict=True)]
    record = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "command": "python benchmarks/run_convolutions.py",
        "results": results,
    }
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")


def text_of(shape: Json) -> str:
    """The problem file of one convolution."""
    rank = len(shape["x"]) - 2
    steps = [tuple(shape[k]) for k in ("stride", "padding")]
    if shape["transposed"]:
        steps += [tuple(shape["output_padding"]), 1]
    arguments = ", ".join(map(str, (*steps, tuple(shape["dilation"]))))
    function = f"conv{'_transpose' if shape['transposed'] else ''}{rank}d"
    x, w = tuple(shape["x"]), tuple(shape["w"])
    return TEXT.format(x=x, w=w, function=function, arguments=arguments)


def emitted(job: tuple[Json, Path]) -> str:
    """Emits and builds the forms of one convolution; its name."""
    shape, files = job
    problem = files / f"{shape['name']}.py"
    problem.write_text(text_of(shape))
    with mock.patch.object(convolutions, "library_seconds", lambda *_: float("inf")):
        for form, precision in FORMS.items():
            options = Options(target="cuda:sm_90a", precision=precision)
            text = compile_problem(load_problem(problem, fake=True), options).module_text
            if "conv90::run" in text:
                new = files / f"{shape['name']}_{form}.py"
                new.write_text(text)
                load(new)._library()
    return shape["name"]


def timed(files: Path, name: str) -> Json:
    """Seconds and differences from eager of one convolution."""
    with torch.device("cuda"), torch.inference_mode():
        problem = load(files / f"{name}.py")
        eager, (x,) = problem.Model(), problem.get_inputs()
        want, subjects = eager(x), {"eager": eager}
        for form in FORMS:
            if (path := files / f"{name}_{form}.py").exists():
                subjects[form] = load(path).ModelNew()
                subjects[form].load_state_dict(eager.state_dict())
        errors = {k: relative_error(f(x), want) for k, f in subjects.items() if k != "eager"}
        seconds = medians_cuda(subjects, [x], ROUNDS, SECONDS)
        kernels = profiled(lambda: subjects["ours"](x)) if "ours" in subjects else {}
        if x.dim() > 3:
            layout = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
            turned = {"channels_last": eager.to(memory_format=layout)}
            seconds |= medians_cuda(turned, [x.to(memory_format=layout)], ROUNDS, SECONDS)
    gc.collect()
    torch.cuda.empty_cache()
    return {"seconds": seconds, "difference_from_eager": errors, "kernels": kernels}


def profiled(call: Callable[[], object]) -> dict[str, float]:
    """Seconds of each kernel of a call."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiler:
        call()
        torch.cuda.synchronize()
    averages = profiler.key_averages()
    return {e.key.partition("(")[0]: e.device_time_total * 1e-6 for e in averages}


if __name__ == "__main__":
    main()
