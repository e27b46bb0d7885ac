"""Checks and times the portable matrix products (no Hopper instruction) against cuBLAS and float64.

Stand-alone: needs torch, a GPU and nvcc, nothing of fusewright but the skeleton text. Builds one
library per tile and layout from `portable.cu`. Nothing of the compiler lives here.

    python benchmarks/gemm/bench_portable.py check --json check.json
    python benchmarks/gemm/bench_portable.py time [NAME ...]   # interleaved with the library
    compute-sanitizer python benchmarks/gemm/bench_portable.py small
"""

import argparse
import ctypes
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import bench_native as native  # noqa: E402
from bench_gemm import RAGGED, SKELETONS, machine, product64, random_pairs  # noqa: E402

Tensor = torch.Tensor
HOLES = (native.PLAIN, native.BIAS_GELU, native.SIGMOID_SUM, native.COLUMN_MAX)
ALONG4, ALONG, ACROSS4, ACROSS = "kAlongK4", "kAlongK", "kAcross4", "kAcross"
LAYOUTS = (ALONG4, ALONG, ACROSS4, ACROSS)
AS_IT_IS = "void"
native.DTYPES["Fma"] = native.DTYPES["Thirds"] = (torch.float32, torch.float32)


@dataclass(frozen=True)
class Unit:
    """One instantiation: kind of product, sums per thread (multiply-adds), how each operand is
    read or what it is packed to."""

    type: str = "Fma"
    items: int = 16
    lanes: int = 8
    a: str = ALONG4
    b: str = ALONG4
    run: int = 4  # columns the epilogue takes at once

    @property
    def name(self) -> str:
        tile = f"{self.type}{self.items}x{self.lanes}" if self.type == "Fma" else self.type
        return f"{tile}_{self.a}_{self.b}_{self.run}".replace("::", "_")

    @property
    def dtype(self) -> torch.dtype:
        return native.DTYPES[self.type][0]

    def build(self, folder: Path) -> ctypes.CDLL:
        """Its library, compiled unless it is in `folder`."""
        target = folder / f"{self.name}.so"
        if not target.exists():
            macros: dict[str, object] = {"RUN": self.run}
            if self.type == "Fma":
                macros |= {"ITEMS": self.items, "LANES": self.lanes}
                macros |= {"LAYOUT_A": self.a, "LAYOUT_B": self.b}
            else:
                macros |= {"TYPE": self.type, "FORMAT_A": self.a, "FORMAT_B": self.b}
            command = [
                "nvcc", "-std=c++17", "-O3", "-shared", "-Xcompiler", "-fPIC", f"-I{SKELETONS}",
                "-gencode", "arch=compute_80,code=sm_90",  # no Hopper instruction, on an H100
                "-diag-suppress=177", *(f"-D{n}={v}" for n, v in macros.items()),
                "-o", str(target), str(HERE / "portable.cu"),
            ]  # fmt: skip
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        library = ctypes.CDLL(str(target))
        library.native_workspace.restype = ctypes.c_int64
        return library


TILES = ((16, 8), (8, 4))
FMA = tuple(Unit("Fma", *tile) for tile in TILES)
LAYOUT_UNITS = tuple(
    Unit("Fma", 8, 4, a, b, run) for a in LAYOUTS for b in LAYOUTS for run in (4, 1)
)
THIRDS = Unit("Thirds", a="tiles::ToThirds", b="tiles::ToThirds", run=8)
HALVES = tuple(Unit(t, a=AS_IT_IS, b=AS_IT_IS, run=8) for t in ("Bfloat16", "Float16"))
PACKED = tuple(
    Unit(t, a=f, b=f, run=run)
    for t, f, runs in (
        ("Thirds", "tiles::ToThirds", (4, 1)),
        ("Bfloat16", "tiles::Unchanged", (8, 1)),
        ("RoundedBfloat16", "tiles::ToBfloat16", (8,)),
        ("Tf32", "tiles::ToTf32", (8,)),
    )
    for run in runs
)
TENSOR = (THIRDS, *HALVES, *PACKED)
EXACT = (*FMA, THIRDS)  # as accurate as float32
UNITS = (*FMA, *LAYOUT_UNITS, *TENSOR)


def build_all(folder: Path, units: tuple[Unit, ...]) -> dict[Unit, ctypes.CDLL]:
    with ThreadPoolExecutor(16) as pool:
        return dict(zip(units, pool.map(lambda u: u.build(folder), units), strict=True))


def layout_of(t: Tensor) -> str:
    """As ir/fma.py decides it."""
    row, k = t.stride(-2), t.stride(-1)
    batch = t.stride(0) if t.dim() == 3 and t.shape[0] > 1 else 0
    aligned = batch % 4 == 0 and t.data_ptr() % 16 == 0
    if k == 1:
        return ALONG4 if aligned and row % 4 == 0 else ALONG
    if row == 1:
        return ACROSS4 if aligned and k % 4 == 0 and t.shape[-2] % 4 == 0 else ACROSS
    return ALONG if k <= row else ACROSS


# ------------------------------------------------------------------------------------ checking


def check(libraries: dict[Unit, ctypes.CDLL]) -> list[native.Row]:
    """All rows; prints each as it is measured."""
    g = torch.Generator(device="cuda").manual_seed(1)
    rows: list[native.Row] = []

    def add(name: str, unit: Unit, x: Tensor, w: Tensor, hole: int = native.PLAIN) -> None:
        r = native.check_row(libraries, name, unit, x, w, hole)  # type: ignore[arg-type]
        ok = r.repeat and r.ours <= max(1.25 * r.library, 5e-7)
        rows.append(native.Row(r.name, r.unit, r.shape, r.library, r.ours, r.repeat, ok))
        print(
            f"{'ok ' if ok else 'BAD'} {r.name:14} {r.unit:30} {r.shape:18} library "
            f"{r.library:.2e} ours {r.ours:.2e}{'' if r.repeat else ' NOT REPEATABLE'}",
            flush=True,
        )

    def pair(m: int, n: int, k: int, *lead: int) -> tuple[Tensor, Tensor]:
        x, w = (torch.randn(*lead, s, k, device="cuda", generator=g) for s in (m, n))
        return x, w

    for unit in (*FMA, *TENSOR):
        for hole in HOLES:
            for m, n, k in ((300, 520, 1000), (130, 264, 8), (1024, 2048, 520)):
                add(f"hole {hole}", unit, *(t.to(unit.dtype) for t in pair(m, n, k)), hole)
    for k in (1, 7, 64, 256, 1000, 8192, 32768):
        pairs = random_pairs(256, 384, k, g)
        del pairs["row ranges"]  # one element decides its norm
        for name, (x, w) in pairs.items():
            if k in (64, 1000, 8192) or name in ("normal", "uniform"):
                for unit in EXACT:
                    add(name, _read_as(unit, x, w), x, w)
    for m, n, k in (*RAGGED, (136, 520, 200)):
        x, w = pair(m, n, k)
        for x2 in (x, x.t().contiguous().t(), _spread(x)):
            for w2 in (w, w.t().contiguous().t(), _spread(w)):
                for unit in _units_for(x2, w2):
                    for hole in (native.PLAIN, native.COLUMN_MAX, native.SIGMOID_SUM):
                        add("layouts", unit, x2.to(unit.dtype), w2.to(unit.dtype), hole)
    check_batches(add, pair)
    check_special(libraries, g)
    return rows


def _units_for(x: Tensor, w: Tensor) -> tuple[Unit, ...]:
    """Those that can read the operands, of each kind."""
    run = 1 if w.shape[-2] % 4 else 4
    half = 1 if w.shape[-2] % 8 else 8
    return (
        Unit("Fma", 8, 4, layout_of(x), layout_of(w), run),
        replace(THIRDS, run=run),
        Unit("Bfloat16", a="tiles::Unchanged", b="tiles::Unchanged", run=half),
    )


def _read_as(unit: Unit, x: Tensor, w: Tensor) -> Unit:
    """The unit, or where it cannot read the operands the small tile that can."""
    a, b = layout_of(x), layout_of(w)
    return unit if unit.type != "Fma" or (a, b) == (unit.a, unit.b) else Unit("Fma", 8, 4, a, b)


def _spread(t: Tensor) -> Tensor:
    """The same matrix with gaps along both axes."""
    wide = torch.full((t.shape[0], 2, t.shape[1], 3), float("nan"), device="cuda")
    wide[:, 0, :, 1] = t
    return wide[:, 0, :, 1]


def check_batches(add: Callable[..., None], pair: Callable[..., tuple[Tensor, Tensor]]) -> None:
    """Batched products, a shared operand, transposed ones."""
    for n, k in ((296, 200), (301, 201)):
        x, w = pair(72, n, k, 3)
        for x2, w2 in (
            (x, w),
            (x, w[0].contiguous()),
            (x[0].contiguous(), w),
            (x, w.mT.contiguous().mT),
        ):
            for unit in _units_for(x2, w2):
                for hole in (native.PLAIN, native.COLUMN_MAX, native.SIGMOID_SUM):
                    add("batched", unit, x2.to(unit.dtype), w2.to(unit.dtype), hole)


def check_special(libraries: dict[Unit, ctypes.CDLL], g: torch.Generator) -> None:
    """Infinities and NaN land where eager puts them."""
    for unit in EXACT:
        x, w = (torch.randn(s, 500, device="cuda", generator=g) for s in (200, 304))
        w[7, 3], x[5, 11] = float("inf"), -float("inf")
        x[9, 400] = w[40, 499] = float("nan")
        x[100, 20], w[100, 20] = float("inf"), 0.0
        want = x @ w.t()
        got = native.Product(libraries, unit, x, w).run()  # type: ignore[arg-type]
        kinds = [(t.isnan(), t == float("inf"), t == -float("inf")) for t in (want, got)]
        same = all(torch.equal(p, q) for p, q in zip(*kinds, strict=True))
        finite = want.isfinite()
        close = native.error(got[finite], product64(x, w)[finite]) < 5e-7
        print("ok " if same and close else "BAD", "special values", unit.name, flush=True)


# -------------------------------------------------------------------------------------- timing

Problem = native.Problem
SIZES = {
    **{f"square{s}": (s, s, s, 0) for s in (256, 512, 1024, 2048, 4096, 8192)},
    **{f"deep{k}": (4096, 4096, k, 0) for k in (16, 64, 256)},
    "tall": (65536, 128, 64, 0),
    "small_k": (16384, 16384, 64, 0),
    "few_rows": (128, 4096, 4096, 0),
    "batched": (512, 512, 64, 64),
}
KINDS = {
    "": EXACT,
    "half_": HALVES[:1],
    "fp16_": HALVES[1:],
    "tf32_": PACKED[-1:],
    "rounded_": PACKED[-2:-1],
}
PROBLEMS = {
    f"{kind}{name}{'_gelu' if hole else ''}": Problem(m, n, k, hole, units, batches)  # type: ignore[arg-type]
    for kind, units in KINDS.items()
    for name, (m, n, k, batches) in SIZES.items()
    if not kind or name in ("square1024", "square4096", "square8192", "deep256")
    for hole in (native.PLAIN, native.BIAS_GELU)
}


def small(libraries: dict[Unit, ctypes.CDLL]) -> None:
    """Every unit once with each hole, on tiles that are not full."""
    for unit in libraries:
        for hole in HOLES:
            x, w = (torch.randn(s, 72, device="cuda").to(unit.dtype) for s in (140, 264))
            bias = torch.randn(264, device="cuda").to(unit.dtype)
            native.Product(libraries, unit, x, w, bias, hole).run()  # type: ignore[arg-type]
    torch.cuda.synchronize()


def main() -> int:
    parser = argparse.ArgumentParser(description="portable matrix products")
    parser.add_argument("what", choices=("check", "time", "small"))
    parser.add_argument("names", nargs="*")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--build", type=Path, help="folder of the compiled libraries")
    parser.add_argument("--date", default="")
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    units = UNITS if options.what == "check" else (*FMA, *TENSOR)
    units = (*FMA, THIRDS, *HALVES, PACKED[-1]) if options.what == "small" else units
    folder = options.build or Path(tempfile.mkdtemp())
    libraries = build_all(folder, tuple(dict.fromkeys(units)))
    record: dict[str, object] = {
        "machine": machine(), "date": options.date, "command": " ".join(sys.argv),
    }  # fmt: skip
    if options.what == "small":
        small(libraries)
    elif options.what == "check":
        rows = check(libraries)
        record["rows"] = [asdict(r) for r in rows]
        print(f"{sum(r.ok for r in rows)} of {len(rows)} rows ok")
    else:
        native.PROBLEMS.update(PROBLEMS)
        names = options.names or list(PROBLEMS)
        record["problems"] = [native.time_problem(libraries, n, options.rounds) for n in names]  # type: ignore[arg-type]
    if options.json:
        options.json.write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
