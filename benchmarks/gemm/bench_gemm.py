"""Checks and times the Hopper matrix-product skeleton by itself, against eager and float64.

Stand-alone: needs torch, a Hopper GPU and nvcc, nothing of fusewright but the skeleton text. Builds
`variants.cu` into a shared library, calls it through ctypes. Nothing of the compiler lives here.

    python benchmarks/gemm/bench_gemm.py check            # errors against float64, all rows
    python benchmarks/gemm/bench_gemm.py time [NAME ...]  # interleaved with eager, verified
"""

import argparse
import ctypes
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch

HERE = Path(__file__).resolve().parent
SKELETONS = HERE.parents[1] / "src" / "fusewright" / "emit" / "skeletons"
PLAIN, SIGMOID_RESIDUAL, BIAS_GELU, SIGMOID_SUM, LOGSUMEXP = range(5)
FLUSH_BYTES = 256 << 20
WARM_UPS = 3
RAGGED = ((1, 1, 1), (1, 300, 500), (3, 5, 7), (129, 257, 65), (255, 127, 1001), (640, 130, 72))
Tensor = torch.Tensor


class Call(ctypes.Structure):
    """The record `variants.cu` calls `Call`."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("x", "w", "bias", "out")),
        *((n, ctypes.c_int64) for n in ("x_row", "x_k", "x_batch", "w_row", "w_k", "w_batch")),
        *(
            (n, ctypes.c_int32)
            for n in ("m", "n", "k", "batches", "hole", "swapped", "safe_only", "reserved")
        ),
    ]


def build(target: Path, extra: tuple[str, ...] = ()) -> None:
    """Compiles `variants.cu` for sm_90a into the shared library `target`."""
    command = [
        "nvcc", "-std=c++17", "-O3", "-shared", "-Xcompiler", "-fPIC", f"-I{SKELETONS}",
        "-gencode", "arch=compute_90a,code=sm_90a", *extra, "-o", str(target),
        str(HERE / "variants.cu"),
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def load(path: Path | None) -> ctypes.CDLL:
    """The library at `path`; built first if it is not there (None: in a temporary folder)."""
    target = path or Path(tempfile.mkdtemp()) / "gemm.so"
    if not target.exists():
        build(target)
    library = ctypes.CDLL(str(target))
    library.gemm_workspace.restype = ctypes.c_int64
    return library


class Product:
    """One prepared call: `run()` enqueues it on the current stream and returns the output.

    x is (m, k) or (b, m, k), w is (n, k) or (b, n, k), any strides with a unit one.
    """

    def __init__(
        self,
        library: ctypes.CDLL,
        x: Tensor,
        w: Tensor,
        bias: Tensor | None = None,
        hole: int = PLAIN,
        swapped: bool = True,
        safe_only: bool = False,
    ) -> None:
        m, k, n = x.shape[-2], x.shape[-1], w.shape[-2]
        batches = max(x.shape[0] if x.dim() == 3 else 1, w.shape[0] if w.dim() == 3 else 1)
        shape = (m, 1) if hole in (SIGMOID_SUM, LOGSUMEXP) else (m, n)
        full = shape if batches == 1 and x.dim() == w.dim() == 2 else (batches, *shape)
        self.library, self.kept = library, (x, w, bias)
        self.out = torch.full(full, float("nan"), device="cuda")
        self.call = Call(
            x.data_ptr(), w.data_ptr(), bias.data_ptr() if bias is not None else None,
            self.out.data_ptr(), *_strides(x), *_strides(w),
            m, n, k, batches, hole, int(swapped), int(safe_only), 0,
        )  # fmt: skip
        size = library.gemm_workspace(ctypes.byref(self.call))
        self.workspace = torch.empty(size, dtype=torch.uint8, device="cuda")

    def run(self) -> Tensor:
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        space = ctypes.c_void_p(self.workspace.data_ptr())
        status = self.library.gemm_run(ctypes.byref(self.call), space, stream)
        if status != 0:
            raise RuntimeError(f"gemm_run failed: CUDA error {status}")
        return self.out

    def redone(self) -> bool:
        """Whether the guard of the last run asked for the six-product scheme."""
        return int(self.workspace[:4].view(torch.int32).item()) != 0


def _strides(t: Tensor) -> tuple[int, int, int]:
    """Row, k and batch strides with exactly one unit stride (extents of 1 have no real stride)."""
    row, k = t.stride(-2), t.stride(-1)
    if t.shape[-1] == 1 and row != 1:
        k = 1
    if k != 1 and row != 1:
        raise ValueError("one of the two inner strides must be 1")
    if k != 1 and t.shape[-1] == 1:
        row, k = k, 1
    return row, k, t.stride(0) if t.dim() == 3 and t.shape[0] > 1 else 0


def error(value: Tensor, exact: Tensor) -> float:
    """Relative L2 distance to a float64 reference."""
    return float((value.double() - exact).norm() / exact.norm())


def product64(x: Tensor, w: Tensor) -> Tensor:
    return x.double() @ w.double().transpose(-1, -2)


# ------------------------------------------------------------------------------------ checking


@dataclass(frozen=True)
class Row:
    """One line of the check: the errors and what the guard did."""

    name: str
    shape: str
    eager: float
    ours: float
    safe: float
    redone: bool
    repeat: bool
    ok: bool


def check_row(library: ctypes.CDLL, name: str, x: Tensor, w: Tensor, swapped: bool) -> Row:
    """Errors of both schemes for x @ w^T; `ok` by the project's accuracy rule."""
    exact = product64(x, w)
    eager = error(x @ w.transpose(-1, -2), exact)
    product = Product(library, x, w, swapped=swapped)
    first = product.run().clone()
    redone = product.redone()
    product.out.fill_(float("nan"))
    repeat = torch.equal(first, product.run())
    ours = error(first, exact)
    safe = error(Product(library, x, w, swapped=swapped, safe_only=True).run(), exact)
    limit = max(1.25 * eager, 5e-7)
    shape = "x".join(map(str, (*x.shape, w.shape[-2])))
    ok = ours <= limit and safe <= limit and repeat
    return Row(name, shape, eager, ours, safe, redone, repeat, ok)


def random_pairs(m: int, n: int, k: int, g: torch.Generator) -> dict[str, tuple[Tensor, Tensor]]:
    """The distributions of the error table."""

    def normal(*s: int) -> Tensor:
        return torch.randn(*s, device="cuda", generator=g)

    def uniform(*s: int) -> Tensor:
        return torch.rand(*s, device="cuda", generator=g)

    x, w = normal(m, k), normal(n, k)
    outlier = torch.where(uniform(m, k) < 1e-3, 1000.0, 1.0)
    outlier_w = torch.where(uniform(n, k) < 1e-3, 1000.0, 1.0)
    huge = uniform(k) < 0.5
    return {
        "normal": (x, w),
        "linear": (uniform(m, k), (uniform(n, k) * 2 - 1) / k**0.5),
        "uniform": (uniform(m, k), uniform(n, k)),
        "outliers": (x * outlier, w * outlier_w),
        "exp(2N)": (torch.exp(2 * x), torch.exp(2 * w)),
        "huge*tiny": (
            x * torch.where(huge, 1e6, 1e-3),
            w * torch.where(huge, 1e-9, 1.0),
        ),
        "relu": (x.relu(), w),
        "1e-30": (x * 1e-30, w),
        "1e30": (x * 1e30, w * 1e-25),
        "both 1e-15": (x * 1e-15, w * 1e-15),
        "denormal": (x * 1e-39, w * 1e3),
        "denormal w": (x * 1e3, w * 1e-40),
        "row ranges": (x * torch.exp(8 * normal(m, 1)), w * torch.exp(8 * normal(n, 1))),
    }


def check(library: ctypes.CDLL) -> list[Row]:
    """All rows; prints each as it is measured."""
    g = torch.Generator(device="cuda").manual_seed(1)
    rows: list[Row] = []

    def add(name: str, x: Tensor, w: Tensor, swapped: bool = True) -> None:
        rows.append(check_row(library, name, x, w, swapped))
        r = rows[-1]
        print(
            f"{'ok ' if r.ok else 'BAD'} {r.name:24} {r.shape:20} eager {r.eager:.2e} "
            f"ours {r.ours:.2e} six {r.safe:.2e} {'redone' if r.redone else ''}"
            f"{'' if r.repeat else ' NOT REPEATABLE'}",
            flush=True,
        )

    for k in (1, 7, 64, 256, 1000, 8192, 32768):
        for name, (x, w) in random_pairs(256, 384, k, g).items():
            if k in (64, 256, 1000, 8192) or name in ("normal", "uniform", "linear"):
                add(name, x, w)
    for k in (64, 256, 1000, 2000):  # few large products decide these results
        for _ in range(4):
            add("exp(2N) again", *random_pairs(256, 384, k, g)["exp(2N)"])
    for m, n, k in RAGGED:
        for swapped in (True, False):
            x, w = (torch.randn(s, k, device="cuda", generator=g) for s in (m, n))
            add(f"ragged swap={int(swapped)}", x, w, swapped)
            add(f"  x transposed {int(swapped)}", x.t().contiguous().t(), w, swapped)
            add(f"  w transposed {int(swapped)}", x, w.t().contiguous().t(), swapped)
            add(f"  both {int(swapped)}", *(t.t().contiguous().t() for t in (x, w)), swapped)
    for swapped in (True, False):
        x, w = (torch.randn(3, s, 200, device="cuda", generator=g) for s in (70, 300))
        add(f"batched {int(swapped)}", x, w, swapped)
        add(f"  shared w {int(swapped)}", x, w[0].contiguous(), swapped)
        add(f"  shared x {int(swapped)}", x[0].contiguous(), w, swapped)
        add(f"  w transposed {int(swapped)}", x, w.mT.contiguous().mT, swapped)
    check_special(library, g)
    check_folds(library, g)
    return rows


def check_special(library: ctypes.CDLL, g: torch.Generator) -> None:
    """Infinities and NaN land where eager puts them, whichever operand holds them."""
    for swapped in (True, False):
        x, w = (torch.randn(s, 500, device="cuda", generator=g) for s in (200, 300))
        w[7, 3] = float("inf")
        w[:, 11] = 1.0
        x[5, 11] = -float("inf")
        x[9, 400] = float("nan")
        w[40, 499] = float("nan")
        x[100, 20], w[100, 20] = float("inf"), 0.0
        want = x @ w.t()
        got = Product(library, x, w, swapped=swapped).run()
        same = _same_special(want, got)
        finite = want.isfinite()
        close = error(got[finite], product64(x, w)[finite]) < 5e-7
        print("ok " if same and close else "BAD", f"special values swap={int(swapped)}", flush=True)


def _same_special(a: Tensor, b: Tensor) -> bool:
    kinds = [(t.isnan(), t == float("inf"), t == -float("inf")) for t in (a, b)]
    return all(torch.equal(p, q) for p, q in zip(*kinds, strict=True))


def check_folds(library: ctypes.CDLL, g: torch.Generator) -> None:
    """Row folds of the result against float64."""
    x, w = (torch.randn(s, 777, device="cuda", generator=g) for s in (131, 1030))
    bias = torch.randn(1030, device="cuda", generator=g)
    z = product64(x, w) + bias.double()
    cases = {
        "sigmoid sum": (SIGMOID_SUM, True, z.sigmoid().sum(1, keepdim=True)),
        "logsumexp": (LOGSUMEXP, True, z.logsumexp(1, keepdim=True)),
        "logsumexp plain": (LOGSUMEXP, False, z.logsumexp(1, keepdim=True)),
    }
    for name, (hole, swapped, want) in cases.items():
        got = error(Product(library, x, w, bias, hole, swapped).run(), want)
        print("ok " if got < 5e-7 else "BAD", f"fold {name:20} {got:.2e}", flush=True)


def stress(library: ctypes.CDLL, runs: int) -> list[dict[str, object]]:
    """Bitwise comparison of many runs of the same product: a race shows as a difference."""
    results: list[dict[str, object]] = []
    g = torch.Generator(device="cuda").manual_seed(2)
    for m, n, k, safe in (
        (1024, 8192, 8192, False),
        (4096, 4096, 512, False),
        (300, 5000, 3000, True),
    ):
        x, w = (torch.randn(s, k, device="cuda", generator=g) for s in (m, n))
        product = Product(library, x, w, safe_only=safe)
        first = product.run().clone()
        differing = 0
        for _ in range(runs):
            product.out.fill_(float("nan"))
            bad = (product.run() != first).nonzero()
            differing += bool(len(bad))
            if len(bad):
                low, high = bad.min(0).values.tolist(), bad.max(0).values.tolist()
                print(
                    "  differs:", len(bad), "elements in rows, columns", low, "to", high, flush=True
                )
        wrong = error(first, product64(x, w))
        print(
            f"{'ok ' if not differing else 'BAD'} stress {m}x{k}x{n} safe={int(safe)}: "
            f"{differing} of {runs} runs differ, error {wrong:.1e}",
            flush=True,
        )
        results.append({"m": m, "n": n, "k": k, "safe": safe, "runs": runs, "differing": differing})
    return results


# -------------------------------------------------------------------------------------- timing


@dataclass(frozen=True)
class Problem:
    """A timed problem: how inputs are drawn, what eager does, which hole computes it."""

    m: int
    n: int
    k: int
    hole: int
    swapped: bool
    eager: Callable[[Tensor, Tensor, Tensor], Tensor]
    batches: int = 0
    products: int = 3


def _gelu(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return torch.nn.functional.gelu(torch.nn.functional.linear(x, w, b))


def _residual(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    g = torch.nn.functional.linear(x, w, b)
    return torch.sigmoid(g) * 2.0 + g


def _sum(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return torch.sigmoid(torch.nn.functional.linear(x, w, b)).sum(1, keepdim=True)


def _lse(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return torch.nn.functional.linear(x, w, b).logsumexp(1, keepdim=True)


def _mm(x: Tensor, w: Tensor, _: Tensor) -> Tensor:
    return x @ w.transpose(-1, -2)


PROBLEMS = {
    "gemm_sigmoid_scaling_residual": Problem(1024, 8192, 8192, SIGMOID_RESIDUAL, True, _residual),
    "matmul_sigmoid_sum": Problem(128, 32768, 32768, SIGMOID_SUM, True, _sum),
    "square4096_gelu": Problem(4096, 4096, 4096, BIAS_GELU, True, _gelu),
    "square8192_gelu": Problem(8192, 8192, 8192, BIAS_GELU, True, _gelu),
    "square2048": Problem(2048, 2048, 2048, PLAIN, True, _mm),
    "square1024": Problem(1024, 1024, 1024, PLAIN, True, _mm),
    "logsumexp_1024x8192x8192": Problem(1024, 8192, 8192, LOGSUMEXP, True, _lse),
    "small_k64": Problem(32768, 32768, 64, PLAIN, True, _mm),
    "small_k64_plain": Problem(32768, 32768, 64, PLAIN, False, _mm),
    "batched128": Problem(512, 2048, 1024, PLAIN, True, _mm, 128),
    "batch1_8192": Problem(1, 8192, 8192, PLAIN, True, _mm),
    "batch16_16384": Problem(16, 16384, 16384, PLAIN, True, _mm),
}

# (m, k, n) around the point where the library is the better choice.
GATE = (
    (8, 8192, 8192),
    (32, 8192, 8192),
    (128, 4096, 4096),
    (128, 8192, 8192),
    (512, 512, 512),
    (512, 4096, 4096),
    (2048, 512, 2048),
    (4096, 128, 4096),
    (8192, 32, 8192),
    (65536, 1024, 256),
)
PROBLEMS |= {f"gate_{m}x{k}x{n}": Problem(m, n, k, PLAIN, True, _mm) for m, k, n in GATE}


def interleaved(
    subjects: dict[str, Callable[[], object]], rounds: int, warm_ups: int = WARM_UPS
) -> dict[str, list[float]]:
    """Milliseconds of each subject's calls, in turn, with an L2 flush before each."""
    flush = torch.empty(FLUSH_BYTES // 4, device="cuda")
    times: dict[str, list[float]] = {s: [] for s in subjects}
    for i in range(rounds + warm_ups):
        for subject, call in subjects.items():
            flush.zero_()
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            stop.record()
            torch.cuda.synchronize()
            if i >= warm_ups:
                times[subject].append(start.elapsed_time(stop))
    return times


def time_problem(library: ctypes.CDLL, name: str, rounds: int) -> dict[str, object]:
    """Median times of interleaved rounds with an L2 flush before each call, and the errors."""
    p = PROBLEMS[name]
    torch.manual_seed(0)
    lead = (p.batches,) if p.batches else ()
    x = torch.rand(*lead, p.m, p.k, device="cuda")
    w = (torch.rand(*lead, p.n, p.k, device="cuda") * 2 - 1) / p.k**0.5
    bias = (torch.rand(p.n, device="cuda") * 2 - 1) / p.k**0.5
    product = Product(library, x, w, bias, p.hole, p.swapped)
    safe = Product(library, x, w, bias, p.hole, p.swapped, safe_only=True)
    subjects = {"eager": lambda: p.eager(x, w, bias), "fast": product.run, "six": safe.run}
    times = interleaved(subjects, rounds)
    redone = product.redone()
    exact, eager_error, ours_error, six_error = _errors(p, x, w, bias, product, safe)
    ms = {s: median(t) for s, t in times.items()}
    flops = 2.0 * p.m * p.n * p.k * max(p.batches, 1)
    result = {
        "name": name, "m": p.m, "n": p.n, "k": p.k, "batches": p.batches, "ms": ms,
        "min_ms": {s: min(t) for s, t in times.items()},
        "speedup": ms["eager"] / ms["fast"], "speedup_six": ms["eager"] / ms["six"],
        "tensor_tflops": 3 * flops / ms["fast"] / 1e9, "redone": redone,
        "error": {"eager": eager_error, "fast": ours_error, "six": six_error},
        "accepted": ours_error <= max(1.25 * eager_error, 5e-7),
    }  # fmt: skip
    print(
        f"{name:32} eager {ms['eager']:.3f} fast {ms['fast']:.3f} ({result['speedup']:.2f}x, "
        f"{result['tensor_tflops']:.0f} TF/s) six {ms['six']:.3f} ({result['speedup_six']:.2f}x) "
        f"err {eager_error:.1e} {ours_error:.1e} {six_error:.1e} redone={redone}",
        flush=True,
    )
    del exact
    return result


def _errors(
    p: Problem, x: Tensor, w: Tensor, bias: Tensor, product: Product, safe: Product
) -> tuple[Tensor, float, float, float]:
    """Float64 by slices of n, so that no float64 copy of the weights is needed."""
    if p.batches:
        x, w = x[-1], w[-1]
    b = bias.double()
    if x.shape[0] * w.shape[0] > 1 << 28:
        x = x[:1024]
    rows = x.shape[0]
    z = torch.cat([product64(x, part) for part in w.split(4096)], 1)
    exact = {
        PLAIN: lambda: z,
        SIGMOID_RESIDUAL: lambda: torch.sigmoid(z + b) * 2 + z + b,
        BIAS_GELU: lambda: torch.nn.functional.gelu(z + b),
        SIGMOID_SUM: lambda: torch.sigmoid(z + b).sum(1, keepdim=True),
        LOGSUMEXP: lambda: (z + b).logsumexp(1, keepdim=True),
    }[p.hole]()
    outs = [t.out[-1] if p.batches else t.out[:rows] for t in (product, safe)]
    return exact, error(p.eager(x, w, bias), exact), error(outs[0], exact), error(outs[1], exact)


def machine() -> dict[str, str]:
    """What the numbers depend on."""
    driver = subprocess.run(
        ["nvidia-smi", "--query-gpu=driver_version,clocks.sm,power.draw", "--format=csv,noheader"],
        capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip
    return {
        "device": torch.cuda.get_device_name(), "torch": torch.__version__,
        "cuda": torch.version.cuda or "", "driver_clock_power": driver,
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("check", "time", "stress"))
    parser.add_argument("names", nargs="*")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--library", type=Path, help="reuse, or build to, this file")
    parser.add_argument("--date", default="")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    library = load(options.library)
    record: dict[str, object] = {
        "machine": machine(), "date": options.date, "command": " ".join(sys.argv),
    }  # fmt: skip
    if options.what == "check":
        rows = check(library)
        record["rows"] = [asdict(r) for r in rows]
        print(f"{sum(r.ok for r in rows)} of {len(rows)} rows ok")
    elif options.what == "stress":
        record["stress"] = stress(library, 300)
    else:
        names = options.names or list(PROBLEMS)
        record["problems"] = [time_problem(library, n, options.rounds) for n in names]
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
