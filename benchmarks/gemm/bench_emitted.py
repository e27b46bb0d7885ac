"""Times emitted files with products against eager, and checks them against float64.

    python benchmarks/gemm/bench_emitted.py write out/gemm
    python benchmarks/gemm/bench_emitted.py time out/gemm --json out/gemm_emitted.json

`write` makes problems and what plain `fusewright optimize` makes of them for cuda:sm_90a; it needs
no GPU. `time` builds the files (in parallel), then interleaves them with eager (16-bit types: and
with the library's product alone), the L2 cache flushed before every call; the error is relative L2
against float64 on the first rows of the input, and a second run must give the same bits. `shapes`
in place of names: operands computed on the way, small grids with a long sum, few rows.
"""

import argparse
import copy
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import ModuleType

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent))
from bench_gemm import interleaved

ROUNDS, WARM_UPS = 11, 2
# Rows of the first input that float64 computes too: bounds its time and memory.
EXACT_POINTS = 1 << 28


@dataclass(frozen=True)
class Problem:
    """forward's expression over x (m, k) and, with a layer, `self.linear`; else y (k, n)."""

    expression: str
    m: int
    k: int
    n: int
    layer: bool = True
    batches: int = 0
    at_least: float = 1.0
    other: str = ""  # y, if it is not uniform in (-1, 1)
    dtype: str = "float32"


PROBLEMS = {
    "gemm_sigmoid_scaling_residual": Problem(
        "torch.sigmoid(h := self.linear(x)) * 2.0 + h", 1024, 8192, 8192, at_least=4.0
    ),
    "matmul_sigmoid_sum": Problem(
        "torch.sigmoid(self.linear(x)).sum(dim=1, keepdim=True)", 128, 32768, 32768, at_least=3.0
    ),
    "square_4096_bias_gelu": Problem("F.gelu(self.linear(x))", 4096, 4096, 4096, at_least=3.5),
    "square_8192_bias_gelu": Problem("F.gelu(self.linear(x))", 8192, 8192, 8192, at_least=3.5),
    "batched_128": Problem("torch.bmm(x, y)", 512, 1024, 2048, False, 128, at_least=3.0),
    "logsumexp_row": Problem(
        "torch.logsumexp(self.linear(x), dim=1)", 1024, 8192, 8192, at_least=3.5
    ),
    "small_k_64_product_alone": Problem("x @ y", 32768, 64, 32768, False, at_least=2.0),
    "small_k_64": Problem("torch.sigmoid(x @ y)", 32768, 64, 32768, False, at_least=2.0),
    "softmax_row": Problem("torch.softmax(self.linear(x), dim=1)", 1024, 8192, 8192),
    "layer_norm_row": Problem("F.layer_norm(self.linear(x), (8192,))", 1024, 8192, 8192),
    "argmax_row": Problem("torch.argmax(self.linear(x), dim=1)", 1024, 8192, 8192),
    "sum_and_max_row": Problem("(h := self.linear(x)).sum(dim=1), h.amax(dim=1)", 1024, 8192, 8192),
    "logsumexp_column": Problem("torch.logsumexp(self.linear(x), dim=0)", 4096, 4096, 4096),
    "small_k_32": Problem("x @ y", 32768, 32, 32768, False),
    "small_k_128": Problem("x @ y", 32768, 128, 32768, False),
    "small_k_ragged": Problem("torch.relu(self.linear(x))", 30001, 50, 20003),
    **{
        f"{dtype}_{name}_bias_gelu": Problem("F.gelu(self.linear(x))", m, k, n, dtype=dtype)
        for name, m, k, n in (("4096", 4096, 4096, 4096), ("ragged", 4000, 4040, 4072))
        for dtype in ("bfloat16", "float16")
    },
    "bfloat16_8192_bias_gelu": Problem(
        "F.gelu(self.linear(x))", 8192, 8192, 8192, dtype="bfloat16"
    ),
    "scalar_loss": Problem("(self.linear(x) - 0.5).square().mean()", 4096, 4096, 4096),
}


CODES = "torch.randint(-127, 128, ({}, {}), dtype=torch.int8)"
SHAPES = {
    "relu_smaller": Problem("self.linear(F.relu(x - 0.5))", 1024, 8192, 8192),
    "gelu_smaller": Problem("self.linear(F.gelu(x))", 1024, 8192, 8192),
    "affine_smaller": Problem(
        "self.linear(x * self.linear.bias + self.linear.bias)", 2048, 2048, 2048
    ),
    "relu_streamed": Problem("self.linear(F.relu(x - 0.5))", 16384, 2048, 2048),
    "affine_streamed": Problem(
        "self.linear(x * self.linear.bias + self.linear.bias)", 16384, 2048, 2048
    ),
    "gelu_streamed": Problem("self.linear(F.gelu(x))", 16384, 2048, 2048),
    "codes_smaller": Problem(
        "x @ (y.to(x.dtype) * 0.01).t()", 8192, 4096, 4096, False, other=CODES.format(4096, 4096)
    ),
    "depth_8192_64x64": Problem("x @ y", 64, 8192, 64, False),
    "depth_100000_128x128": Problem("x @ y", 128, 100000, 128, False),
    "depth_65536_256x256": Problem("x @ y", 256, 65536, 256, False),
    "depth_16384_512x512_gelu": Problem("F.gelu(self.linear(x))", 512, 16384, 512),
    "rows_128_4096_gelu": Problem("F.gelu(self.linear(x))", 128, 4096, 4096),
    "rows_32_8192": Problem("self.linear(x)", 32, 8192, 8192),
    "rows_512_4096": Problem("self.linear(x)", 512, 4096, 4096),
    "rows_8_8192": Problem("self.linear(x)", 8, 8192, 8192),
    "rows_4_8192x32768": Problem("self.linear(x)", 4, 8192, 32768),
    "rows_4_8192_across": Problem("x @ y", 4, 8192, 8192, False),
    "rows_2_8192_gelu": Problem("F.gelu(self.linear(x))", 2, 8192, 8192),
    "vector_8192": Problem("self.linear(x)", 1, 8192, 8192),
    "vector_8192_across": Problem("x @ y", 1, 8192, 8192, False),
    "vectors_64x2048": Problem("torch.bmm(x, y)", 2048, 2048, 1, False, 64),
}
EVERY = PROBLEMS | SHAPES


def text_of(p: Problem) -> str:
    """The problem file."""
    lead = f"{p.batches}, " if p.batches else ""
    of_type = "" if p.dtype == "float32" else f", dtype=torch.{p.dtype}"
    layer = f"        self.linear = nn.Linear({p.k}, {p.n}{of_type})\n" if p.layer else ""
    other = "" if p.layer else f", {p.other or f'torch.rand({lead}{p.k}, {p.n}{of_type}) * 2 - 1'}"
    return (
        "import torch\nimport torch.nn as nn\nimport torch.nn.functional as F\n\n\n"
        "class Model(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        f"{layer}\n    def forward(self, x{'' if p.layer else ', y'}):\n"
        f"        return {p.expression}\n\n\n"
        f"def get_inputs():\n    return [torch.rand({lead}{p.m}, {p.k}{of_type}){other}]\n\n\n"
        "def get_init_inputs():\n    return []\n"
    )


def write(folder: Path, names: list[str]) -> None:
    """Problem files and what `fusewright optimize` makes of them."""
    folder.mkdir(parents=True, exist_ok=True)

    def one(name: str) -> None:
        source = folder / f"{name}.py"
        source.write_text(text_of(EVERY[name]), encoding="utf-8")
        command = [sys.executable, "-m", "fusewright", "optimize", str(source), "--no-check"]
        command += ["--target", "cuda:sm_90a", "-o", str(folder / f"{name}_fused.py")]
        subprocess.run(command, check=True, capture_output=True)

    in_parallel(one, names)


def in_parallel(work: Callable[[str], None], names: list[str]) -> None:
    """`work` on every name, a process of its own each."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(work, names))


def module_of(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(folder: Path, names: list[str]) -> None:
    """Compiles every file in a process of its own; the results are cached on disk."""

    def one(name: str) -> None:
        at = folder / f"{name}_fused.py"
        code = f"import bench_emitted as b, pathlib\nm = b.module_of(pathlib.Path({str(at)!r}))\n"
        code += "getattr(m, '_library', int)()"  # a file may leave everything to the library
        subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)

    in_parallel(one, names)


def error(got: Tensor, want: Tensor) -> float:
    """Relative L2; for positions the share that differs."""
    if not got.is_floating_point():
        return (got != want).double().mean().item()
    return ((got.double() - want).norm() / want.norm()).item()


def tensors(out: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (out,) if isinstance(out, Tensor) else out


def errors(
    model: torch.nn.Module, inputs: list[Tensor], outs: dict[str, tuple[Tensor, ...]], p: Problem
) -> dict[str, float]:
    """The largest error of each subject's outputs; over whole rows where rows are independent."""
    by_rows = outs["eager"][0].dim() > 0 and len(outs["eager"][0]) == len(inputs[0])
    per_row = p.n * (p.m if p.batches else 1)
    rows = min(len(inputs[0]), max(1, EXACT_POINTS // per_row)) if by_rows else len(inputs[0])
    x, *rest = inputs
    rest = [y[:rows] if p.batches else y for y in rest]
    exact = copy.deepcopy(model).double()
    want = tensors(exact(x[:rows].double(), *(y.double() for y in rest)))
    del exact
    cut = slice(rows) if by_rows else ...
    return {
        s: max(error(o[cut], w) for o, w in zip(out, want, strict=True)) for s, out in outs.items()
    }


@torch.no_grad()
def time_problem(folder: Path, name: str) -> dict[str, object]:
    """Times, errors and repeatability of one problem."""
    p, module = EVERY[name], module_of(folder / f"{name}_fused.py")
    torch.manual_seed(0)
    with torch.device("cuda"):
        model, new = module.Model(), module.ModelNew()
        inputs = module.get_inputs()
    new.load_state_dict(model.state_dict())
    subjects = {"eager": lambda: model(*inputs), "emitted": lambda: new(*inputs)}
    outs = {s: tensors(call()) for s, call in subjects.items()}
    if p.dtype != "float32":
        subjects["product"] = lambda: inputs[0] @ model.linear.weight.mT
    again = tensors(subjects["emitted"]())
    same = all(torch.equal(a, b) for a, b in zip(outs["emitted"], again, strict=True))
    found = errors(model, inputs, outs, p)
    del outs, again
    times = interleaved(subjects, ROUNDS, WARM_UPS)
    ms = {s: median(t) for s, t in times.items()}
    accepted = found["emitted"] <= max(1.25 * found["eager"], 5e-7)
    result = {
        "name": name, "m": p.m, "k": p.k, "n": p.n, "batches": p.batches, "ms": ms,
        "min_ms": {s: min(t) for s, t in times.items()}, "speedup": ms["eager"] / ms["emitted"],
        "dtype": p.dtype,
        "at_least": p.at_least, "error": found, "accepted": accepted, "same_bits": same,
    }  # fmt: skip
    print(
        f"{name:32} eager {ms['eager']:.3f} emitted {ms['emitted']:.3f} "
        f"({ms['eager'] / ms['emitted']:.2f}x, wanted {p.at_least}) product alone "
        f"{ms.get('product', 0):.3f} error {found['eager']:.1e} {found['emitted']:.1e} "
        f"{'ok' if accepted and same else 'BAD'}",
        flush=True,
    )
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("write", "time"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--date", default="")
    options = parser.parse_args()
    names = options.names or list(PROBLEMS)
    names = list(SHAPES) if names == ["shapes"] else names
    if options.what == "write":
        write(options.folder, names)
        return 0
    folder = options.folder.resolve()
    build(folder, names)
    record: dict[str, object] = {
        "device": torch.cuda.get_device_name(), "torch": torch.__version__,
        "cuda": torch.version.cuda, "date": options.date, "problems": [],
    }  # fmt: skip
    rows: list[dict[str, object]] = []
    for name in names:
        rows.append(time_problem(folder, name))
        torch.cuda.empty_cache()
        record["problems"] = rows
        if options.json:
            options.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0 if all(r["accepted"] and r["same_bits"] for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
