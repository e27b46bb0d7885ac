"""Time the elementary functions of the CPU kernels against torch's own ops.

One loop per function over float32 arrays that do not fit the caches, built with the flags of
emitted kernels, timed alternately with the torch op (its best of several rounds each, output
preallocated). Prints nanoseconds per element as a Markdown table; needs g++.

    python benchmarks/vecmath_bench.py [--threads 1,2] [--log2-size 24] [NAME ...]
"""

import argparse
import ctypes
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from fusewright.emit.vecmath import vecmath_source

UNARY = (
    "exp sigmoid tanh log erf expm1 log1p exp2 log2 log10 sin cos tan erfc sinh cosh asin acos "
    "atan asinh acosh atanh erfinv rsqrt"
)
BINARY = ("pow", "atan2", "hypot")
POSITIVE = ("log", "log2", "log10", "log1p", "rsqrt", "pow")
FLAGS = ["-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-fno-trapping-math"]
FLAGS += ["-ffp-contract=fast", "-std=c++17", "-shared", "-fPIC"]
LOOP = """
extern "C" void {name}_loop(const float* __restrict x, const float* __restrict y,
                            float* __restrict out, long n, int threads) {{ (void)y;
    _Pragma("omp parallel for simd schedule(static) num_threads(threads)")
    for (long i = 0; i < n; ++i) out[i] = fw_{name}({arguments});
}}
"""


def build(names: list[str], folder: Path) -> ctypes.CDLL:
    """Compile one loop per name into a shared library under `folder`."""
    source, library = folder / "loops.cpp", folder / "loops.so"
    loops = [
        LOOP.format(name=name, arguments="x[i], y[i]" if name in BINARY else "x[i]")
        for name in names
    ]
    source.write_text(vecmath_source(names) + "".join(loops))
    subprocess.run(["g++", *FLAGS, str(source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def arguments_of(name: str, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two float32 vectors inside the domain of `name`."""
    generator = torch.Generator().manual_seed(0)
    x, y = (3 * torch.randn(size, generator=generator) for _ in range(2))
    if name in POSITIVE:
        x = x.abs() + 1e-3
    if name in ("asin", "acos", "atanh", "erfinv"):
        x = torch.tanh(x)
    return (x.abs() + 1 if name == "acosh" else x), y


def best_of(rounds: int, *actions: Callable[[], object]) -> list[float]:
    """The shortest time in seconds of each action, the actions taking turns."""
    best = [float("inf")] * len(actions)
    for _ in range(rounds):
        for i, action in enumerate(actions):
            start = time.perf_counter()
            action()
            best[i] = min(best[i], time.perf_counter() - start)
    return best


def compare(library: ctypes.CDLL, name: str, size: int, threads: int) -> tuple[float, float]:
    """Nanoseconds per element of the vecmath loop and of the torch op."""
    x, y = arguments_of(name, size)
    out = torch.empty_like(x)
    pointers = [ctypes.c_void_p(t.data_ptr()) for t in (x, y, out)]
    loop = getattr(library, f"{name}_loop")
    operands = (x, y) if name in BINARY else (x,)
    torch.set_num_threads(threads)
    ours, theirs = best_of(
        7,
        lambda: loop(*pointers, ctypes.c_long(size), ctypes.c_int(threads)),
        lambda: getattr(torch, name)(*operands, out=out),
    )
    return 1e9 * ours / size, 1e9 * theirs / size


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", help="functions (default: all)")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--log2-size", type=int, default=24)
    options = parser.parse_args()
    names = options.names or [*UNARY.split(), *BINARY]
    print("| function | threads | vecmath ns | torch ns | ratio |\n| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        library = build(names, Path(folder))
        for name in names:
            for threads in map(int, options.threads.split(",")):
                ours, theirs = compare(library, name, 2**options.log2_size, threads)
                print(f"| {name} | {threads} | {ours:.3f} | {theirs:.3f} | {theirs / ours:.2f} |")


if __name__ == "__main__":
    main()
