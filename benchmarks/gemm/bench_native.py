"""Checks and times the native Hopper matrix product (bf16, fp16, TF32) against cuBLAS and float64.

Stand-alone: needs torch, a Hopper GPU and nvcc, nothing of fusewright but the skeleton text. Builds
one library per tile, type and layout from `native.cu`. Nothing of the compiler lives here.

    python benchmarks/gemm/bench_native.py check
    python benchmarks/gemm/bench_native.py time [NAME ...]   # interleaved with the library
"""

import argparse
import ctypes
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from bench_gemm import RAGGED, SKELETONS, error, interleaved, machine, product64  # noqa: E402

Tensor = torch.Tensor
PLAIN, BIAS_GELU, SIGMOID_SUM, COLUMN_MAX = range(4)
ALONG, ACROSS, PACKED = "kAlongK", "kAcross", "kPacked"
DTYPES = {
    "Bfloat16": (torch.bfloat16, torch.bfloat16),
    "Float16": (torch.float16, torch.float16),
    "RoundedBfloat16": (torch.float32, torch.float32),
    "Tf32": (torch.float32, torch.float32),
}


class Call(ctypes.Structure):
    """The record `native.cu` calls `Call`."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("x", "w", "bias", "out")),
        *((n, ctypes.c_int64) for n in ("x_row", "x_k", "x_batch", "w_row", "w_k", "w_batch")),
        *((n, ctypes.c_int32) for n in ("m", "n", "k", "batches", "hole", "reserved")),
    ]


@dataclass(frozen=True)
class Unit:
    """One instantiation: operand type, tile, how each operand is taken."""

    type: str = "Bfloat16"
    columns: int = 256
    ctas: int = 2
    a: str = ALONG
    b: str = ALONG
    run: int = 8  # columns the epilogue takes at once

    @property
    def name(self) -> str:
        return f"{self.type}_{self.columns}x{self.ctas}_{self.a[1:]}_{self.b[1:]}_{self.run}"

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.type][0]

    def build(self, folder: Path) -> ctypes.CDLL:
        """Its library, compiled unless it is in `folder`."""
        target = folder / f"{self.name}.so"
        if not target.exists():
            source = "float" if self.dtype == torch.float32 else "uint16_t"
            command = [
                "nvcc", "-std=c++17", "-O3", "-shared", "-Xcompiler", "-fPIC", f"-I{SKELETONS}",
                "-gencode", "arch=compute_90a,code=sm_90a", "-diag-suppress=177",
                f"-DTYPE={self.type}", f"-DSOURCE={source}", f"-DCOLUMNS={self.columns}",
                f"-DCTAS={self.ctas}", f"-DLAYOUT_A={self.a}", f"-DLAYOUT_B={self.b}",
                f"-DRUN={self.run}",
                "-o", str(target), str(HERE / "native.cu"),
            ]  # fmt: skip
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        library = ctypes.CDLL(str(target))
        library.native_workspace.restype = ctypes.c_int64
        return library


TILES = ((256, 2), (256, 1), (128, 2), (128, 1))
LAYOUTS = (ALONG, ACROSS, PACKED)
HALVES = tuple(Unit("Bfloat16", *tile) for tile in TILES)
UNITS = (
    *HALVES,
    *(
        Unit(a=a, b=b, run=run)
        for a in LAYOUTS
        for b in LAYOUTS
        for run in (8, 1)
        if (a, b, run) != (ALONG, ALONG, 8)
    ),
    Unit(a=PACKED, b=PACKED, run=4),
    Unit("Float16"),
    *(Unit(t, *tile, PACKED, PACKED) for t in ("RoundedBfloat16", "Tf32") for tile in TILES[::2]),
)


def build_all(folder: Path, units: tuple[Unit, ...] = UNITS) -> dict[Unit, ctypes.CDLL]:
    with ThreadPoolExecutor(16) as pool:
        return dict(zip(units, pool.map(lambda u: u.build(folder), units), strict=True))


class Product:
    """One prepared call: `run()` enqueues it on the current stream and returns the output.

    x is (m, k) or (b, m, k), w is (n, k) or (b, n, k), any strides the unit takes.
    """

    def __init__(
        self,
        libraries: dict[Unit, ctypes.CDLL],
        unit: Unit,
        x: Tensor,
        w: Tensor,
        bias: Tensor | None = None,
        hole: int = PLAIN,
    ) -> None:
        m, k, n = x.shape[-2], x.shape[-1], w.shape[-2]
        batches = max(x.shape[0] if x.dim() == 3 else 1, w.shape[0] if w.dim() == 3 else 1)
        lead = () if x.dim() == w.dim() == 2 else (batches,)
        shape = {SIGMOID_SUM: (m,), COLUMN_MAX: (n,)}.get(hole, (m, n))
        out_dtype = torch.float32 if hole in (SIGMOID_SUM, COLUMN_MAX) else DTYPES[unit.type][1]
        self.library, self.kept = libraries[unit], (x, w, bias)
        self.out = torch.full((*lead, *shape), float("nan"), device="cuda", dtype=out_dtype)
        self.call = Call(
            x.data_ptr(), w.data_ptr(), bias.data_ptr() if bias is not None else None,
            self.out.data_ptr(), *_strides(x), *_strides(w), m, n, k, batches, hole, 0,
        )  # fmt: skip
        size = self.library.native_workspace(ctypes.byref(self.call))
        self.workspace = torch.full((size,), 0xFF, dtype=torch.uint8, device="cuda")

    def run(self) -> Tensor:
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        space = ctypes.c_void_p(self.workspace.data_ptr())
        status = self.library.native_run(ctypes.byref(self.call), space, stream)
        if status != 0:
            raise RuntimeError(f"native_run failed: CUDA error {status}")
        return self.out


def _strides(t: Tensor) -> tuple[int, int, int]:
    return t.stride(-2), t.stride(-1), t.stride(0) if t.dim() == 3 and t.shape[0] > 1 else 0


def layout_of(t: Tensor) -> str:
    """How the product takes an operand: what bulk copies can address, else a packed copy."""
    row, k, batch = _strides(t)
    step, fits = 16 // t.element_size(), t.dtype != torch.float32
    if fits and k == 1 and row % step == 0 and batch % step == 0:
        return ALONG
    if fits and row == 1 and k % step == 0 and batch % step == 0:
        return ACROSS
    return PACKED


# ------------------------------------------------------------------------------------ checking


@dataclass(frozen=True)
class Row:
    """One line of the check: relative L2 errors against float64."""

    name: str
    unit: str
    shape: str
    library: float
    ours: float
    repeat: bool
    ok: bool


def reference(hole: int, z: Tensor, bias: Tensor) -> Tensor:
    """What the hole computes from the product `z`, in z's type."""
    b = bias.to(z.dtype)
    return {
        PLAIN: lambda: z,
        BIAS_GELU: lambda: torch.nn.functional.gelu(z + b),
        SIGMOID_SUM: lambda: (z + b).sigmoid().sum(-1),
        COLUMN_MAX: lambda: (z + b).amax(-2),
    }[hole]()


def check_row(
    libraries: dict[Unit, ctypes.CDLL], name: str, unit: Unit, x: Tensor, w: Tensor, hole: int
) -> Row:
    """Errors of ours and of the library's product with the hole in float32 behind it; `ok` by the
    project's accuracy rule."""
    bias = torch.randn(w.shape[-2], device="cuda", dtype=unit.dtype)
    exact = reference(hole, product64(x, w), bias.double())
    torch.backends.cuda.matmul.allow_tf32 = unit.type == "Tf32"
    lower = torch.bfloat16 if unit.type == "RoundedBfloat16" else unit.dtype
    plain = (x.to(lower) @ w.to(lower).transpose(-1, -2)).to(unit.dtype)
    product = Product(libraries, unit, x, w, bias, hole)
    library = error(reference(hole, plain.float(), bias.float()).to(product.out.dtype), exact)
    first = product.run().clone()
    product.out.fill_(float("nan"))
    repeat = torch.equal(first, product.run())
    ours = error(first, exact)
    shape = "x".join(map(str, (*x.shape, w.shape[-2])))
    return Row(
        name, unit.name, shape, library, ours, repeat, repeat and ours <= max(1.25 * library, 1e-6)
    )


def check(libraries: dict[Unit, ctypes.CDLL]) -> list[Row]:
    """All rows; prints each as it is measured."""
    g = torch.Generator(device="cuda").manual_seed(1)
    rows: list[Row] = []

    def add(name: str, unit: Unit, x: Tensor, w: Tensor, hole: int = PLAIN) -> None:
        rows.append(check_row(libraries, name, unit, x, w, hole))
        r = rows[-1]
        print(
            f"{'ok ' if r.ok else 'BAD'} {r.name:14} {r.unit:34} {r.shape:18} library "
            f"{r.library:.2e} ours {r.ours:.2e}{'' if r.repeat else ' NOT REPEATABLE'}",
            flush=True,
        )

    def pair(unit: Unit, m: int, n: int, k: int, *lead: int) -> tuple[Tensor, Tensor]:
        x, w = (torch.randn(*lead, s, k, device="cuda", generator=g) for s in (m, n))
        return x.to(unit.dtype), w.to(unit.dtype)

    for unit in UNITS:
        if {unit.a, unit.b} == {ALONG} or unit.dtype == torch.float32 or unit.run == 4:
            for hole in (PLAIN, BIAS_GELU, SIGMOID_SUM, COLUMN_MAX):
                add(f"hole {hole}", unit, *pair(unit, 300, 520, 1000), hole)
                add(f"hole {hole}", unit, *pair(unit, 1024, 3000, 72), hole)
            add("large", unit, *pair(unit, 2048, 4096, 2048))
            add("deep", unit, *pair(unit, 256, 512, 32768))
    for m, n, k in (*RAGGED, (256, 512, 64), (136, 520, 200)):
        for change_x in (False, True):
            for change_w in (False, True):
                x, w = pair(UNITS[0], m, n, k)
                x = x.t().contiguous().t() if change_x else x
                w = w.t().contiguous().t() if change_w else w
                unit = Unit(a=layout_of(x), b=layout_of(w), run=1 if n % 8 else 8)
                add("layouts", unit, x, w)
                add("layouts", unit, x, w, COLUMN_MAX)
    check_batches(add, pair)
    return rows


def check_batches(add: Callable[..., None], pair: Callable[..., tuple[Tensor, Tensor]]) -> None:
    """Batched products, a shared operand, transposed ones."""
    for n, k in ((296, 200), (300, 201)):
        x, w = pair(UNITS[0], 72, n, k, 3)
        for x2, w2 in (
            (x, w),
            (x, w[0].contiguous()),
            (x[0].contiguous(), w),
            (x, w.mT.contiguous().mT),
        ):
            unit = Unit(a=layout_of(x2), b=layout_of(w2), run=4 if n % 8 else 8)
            add("batched", unit, x2, w2)
            add("batched", unit, x2, w2, SIGMOID_SUM)


# -------------------------------------------------------------------------------------- timing


@dataclass(frozen=True)
class Problem:
    m: int
    n: int
    k: int
    hole: int
    units: tuple[Unit, ...]
    batches: int = 0


SQUARES = (1024, 2048, 4096, 8192)
PROBLEMS = {
    **{f"square{s}_gelu": Problem(s, s, s, BIAS_GELU, HALVES) for s in SQUARES},
    **{f"square{s}": Problem(s, s, s, PLAIN, HALVES) for s in SQUARES},
    "fp16_square4096_gelu": Problem(4096, 4096, 4096, BIAS_GELU, (Unit("Float16"),)),
    "across_4096": Problem(4096, 4096, 4096, BIAS_GELU, (Unit(a=ACROSS, b=ACROSS),)),
    "row_sum_4096": Problem(4096, 4096, 4096, SIGMOID_SUM, HALVES[:1]),
    "small_k": Problem(16384, 16384, 256, BIAS_GELU, HALVES),
    "batched": Problem(512, 2048, 1024, BIAS_GELU, HALVES, 64),
    **{
        f"{t}_square{s}_gelu": Problem(
            s, s, s, BIAS_GELU, tuple(Unit(t, *tile, PACKED, PACKED) for tile in TILES[::2])
        )
        for s in (4096, 8192)
        for t in ("RoundedBfloat16", "Tf32")
    },
}


def inputs(p: Problem) -> tuple[Tensor, Tensor, Tensor]:
    """N(0, 1) rows and weights as nn.Linear draws them; contiguous as the unit takes them."""
    unit, lead = p.units[0], (p.batches,) if p.batches else ()
    x = torch.randn(*lead, p.m, p.k, device="cuda").to(unit.dtype)
    w = ((torch.rand(*lead, p.n, p.k, device="cuda") * 2 - 1) / p.k**0.5).to(unit.dtype)
    x = x.mT.contiguous().mT if unit.a == ACROSS else x
    w = w.mT.contiguous().mT if unit.b == ACROSS else w
    return x, w, torch.randn(p.n, device="cuda").to(unit.dtype)


def time_problem(libraries: dict[Unit, ctypes.CDLL], name: str, rounds: int) -> dict[str, object]:
    """Median times of interleaved rounds with an L2 flush before each call, and the errors.

    `library` is the product alone, `eager` the product and what the hole computes.
    """
    p = PROBLEMS[name]
    torch.manual_seed(0)
    x, w, bias = inputs(p)
    torch.backends.cuda.matmul.allow_tf32 = p.units[0].type == "Tf32"
    products = {u.name: Product(libraries, u, x, w, bias, p.hole) for u in p.units}
    wt = w.transpose(-1, -2)
    subjects: dict[str, Callable[[], object]] = {
        "library": lambda: x @ wt,
        "eager": lambda: reference(p.hole, x @ wt, bias),
        **{u: q.run for u, q in products.items()},
    }
    ms = {s: median(t) for s, t in interleaved(subjects, rounds).items()}
    exact = reference(p.hole, product64(*_few(x, w, p)), bias.double())
    eager = error(reference(p.hole, torch.matmul(*_few(x, wt, p)), bias), exact)
    flops = 2.0 * p.m * p.n * p.k * max(p.batches, 1)
    errors = {u: error(_first(q.out, p), exact) for u, q in products.items()}
    best = min(products, key=lambda u: ms[u])
    result = {
        "name": name, "m": p.m, "n": p.n, "k": p.k, "batches": p.batches, "ms": ms, "best": best,
        "tflops": {s: flops / t / 1e9 for s, t in ms.items()},
        "of_library_alone": ms["library"] / ms[best], "speedup": ms["eager"] / ms[best],
        "error": {"eager": eager, **errors},
    }  # fmt: skip
    print(
        f"{name:28} library {ms['library']:.4f} ({flops / ms['library'] / 1e9:.0f} TF/s) eager "
        f"{ms['eager']:.4f} "
        + " ".join(f"{u} {ms[u]:.4f} ({errors[u]:.1e})" for u in products)
        + f" of library {result['of_library_alone']:.3f} eager error {eager:.1e}",
        flush=True,
    )
    return result


def _few(x: Tensor, w: Tensor, p: Problem) -> tuple[Tensor, Tensor]:
    """The first batch and rows, so that float64 copies stay small."""
    x, w = (x[0], w[0]) if p.batches else (x, w)
    return (x if p.hole == COLUMN_MAX else x[:1024]), w


def _first(out: Tensor, p: Problem) -> Tensor:
    out = out[0] if p.batches else out
    return out if p.hole == COLUMN_MAX else out[:1024]


def main() -> int:
    parser = argparse.ArgumentParser(description="native Hopper matrix product")
    parser.add_argument("what", choices=("check", "time"))
    parser.add_argument("names", nargs="*")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--build", type=Path, help="folder of the compiled libraries")
    parser.add_argument("--date", default="")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    libraries = build_all(options.build or Path(tempfile.mkdtemp()))
    record: dict[str, object] = {
        "machine": machine(), "date": options.date, "command": " ".join(sys.argv),
    }  # fmt: skip
    if options.what == "check":
        rows = check(libraries)
        record["rows"] = [asdict(r) for r in rows]
        print(f"{sum(r.ok for r in rows)} of {len(rows)} rows ok")
    else:
        names = options.names or list(PROBLEMS)
        record["problems"] = [time_problem(libraries, n, options.rounds) for n in names]
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
