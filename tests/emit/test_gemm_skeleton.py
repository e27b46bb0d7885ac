"""The Hopper matrix products: index arithmetic on the CPU, assembly gates, results on a GPU."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
SKELETONS = ROOT / "src" / "fusewright" / "emit" / "skeletons"
SHIM = Path(__file__).resolve().parent / "gemm_shim"
PARTS = ("raster.cuh", "unit_finish.cuh", *sorted(p.name for p in SKELETONS.glob("*_sm90*.cuh")))
PORTABLE = ROOT / "benchmarks" / "gemm" / "portable.cu"
UNIT = """
#include "gemm_sm90_short_launch.cuh"
struct Hole {
    static constexpr bool kSwapped = SWAPPED;
    static constexpr int kPartialWords = WORDS;
    static constexpr bool kFoldsOverN = true;
    static constexpr int kSlices = SLICES, kDepth = DEPTH, kRun = DEPTH ? 4 : 1;
    static constexpr bool kWhole = DEPTH > 0;
    static constexpr gemm90::Division kDivision =
        DEPTH ? gemm90::Division::kStrips : gemm90::Division::kAny;
    static constexpr bool kMapsStream = SLICES > 1, kMapsPlanes = SLICES > 1, kWholeStream = false;
    const float* scale;
    const float* bias;
    float* out;
    long long pitch;
    __device__ void apply(int, int m, int n, float acc, float* p) const {
        const float g = acc + __ldg(bias + n);
        if (WORDS == 0) out[m * pitch + n] = g / (1.0f + expf(-g));
        if (WORDS == 1) p[0] = fmaxf(p[0], g);
    }
    __device__ void apply(int b, int m, int n, const float (&acc)[4], float* p) const {
        for (int v = 0; v < 4; ++v) apply(b, m, n + v, acc[v], p);
    }
    __device__ void element(int batch, int m, int n, float acc, float* p) const {
        p[0] = -INFINITY;
        apply(batch, m, n, acc, p);
    }
    __device__ float stream(int, int, int k, float x) const { return fmaxf(x, 0.0f) * scale[k]; }
    __device__ float planes(int, int row, int k) const { return expf(scale[row]) * bias[k]; }
    __device__ static void partial_identity(float* p) { p[0] = -INFINITY; }
    __device__ static void partial_merge(float* p, const float* q) { p[0] = fmaxf(p[0], q[0]); }
    __device__ void finish(int, int m, const float* p) const { out[m] = p[0]; }
};
extern "C" int entry(const gemm90::Problem* p, Hole hole, void* space, cudaStream_t stream) {
    return gemm90::run(*p, hole, space, false, stream);
}
"""


@pytest.mark.parametrize("check", ["check.cpp", "check_native.cpp"])
def test_index_arithmetic_and_splits_on_the_cpu(tmp_path: Path, check: str) -> None:
    """Fragments, bank conflicts, raster and splits, run by a host compiler over a shim."""
    for part in PARTS:
        text = (SKELETONS / part).read_text(encoding="utf-8")
        (tmp_path / part).write_text(text, encoding="utf-8")
    for part in ("sm90.cuh", "sm90_shared.cuh"):
        shutil.copy(SHIM / part, tmp_path)
    program = tmp_path / "check"
    command = ["g++", "-std=c++20", "-O1", "-w", f"-I{tmp_path}", "-o", str(program)]
    subprocess.run([*command, str(SHIM / check)], check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
@pytest.mark.parametrize(
    ("swapped", "words", "slices", "depth"),
    [
        *((s, w, 1, 0) for s in (True, False) for w in (0, 1)),
        *((True, 0, 4, 0), (False, 1, 3, 8192), (True, 0, 1, 64), (False, 0, 1, 128)),
    ],
)
def test_assembles_without_spills_or_serialisation(
    tmp_path: Path, swapped: bool, words: int, slices: int, depth: int
) -> None:
    """Every kernel of the unit: no stack, no spill, no C75xx remark, within 227 KB. More than one
    slice of K goes with computed operands here; depth 0 has kernels for all depths."""
    source = tmp_path / "unit.cu"
    source.write_text(UNIT)
    macros = (f"-DSWAPPED={int(swapped)}", f"-DWORDS={words}", f"-DSLICES={slices}")
    kernels = 6 if depth else 10
    _assemble(source, tmp_path, kernels, *macros, f"-DDEPTH={depth}")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
@pytest.mark.parametrize(
    "unit",
    [
        ("Bfloat16", "uint16_t", 256, 2, "kAlongK", "kAlongK", 8),
        ("Float16", "uint16_t", 128, 2, "kAcross", "kPacked", 1),
        ("RoundedBfloat16", "float", 256, 2, "kPacked", "kPacked", 8),
        ("Tf32", "float", 256, 2, "kPacked", "kPacked", 4),
    ],
)
def test_native_products_assemble_without_spills_or_serialisation(
    tmp_path: Path, unit: tuple[str | int, ...]
) -> None:
    """The same of the products in 16-bit types and TF32, with four different holes."""
    names = ("TYPE", "SOURCE", "COLUMNS", "CTAS", "LAYOUT_A", "LAYOUT_B", "RUN")
    macros = [f"-D{n}={v}" for n, v in zip(names, unit, strict=True)]
    _assemble(ROOT / "benchmarks" / "gemm" / "native.cu", tmp_path, 6, *macros)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
@pytest.mark.parametrize(
    ("unit", "arch"),
    [
        ((16, 8, "kAlongK4", "kAcross4", 4), "80"),
        ((16, 8, "kAcross", "kAlongK", 1), "90a"),
        ((8, 4, "kAlongK", "kAcross4", 2), "75"),
    ],
)
def test_multiply_adds_assemble_without_spills(
    tmp_path: Path, unit: tuple[str | int, ...], arch: str
) -> None:
    """Every tile for an architecture that it is meant for."""
    names = ("ITEMS", "LANES", "LAYOUT_A", "LAYOUT_B", "RUN")
    macros = [f"-D{n}={v}" for n, v in zip(names, unit, strict=True)]
    _assemble(PORTABLE, tmp_path, 6, *macros, arch=arch)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
@pytest.mark.parametrize(
    "unit",
    [
        ("Thirds", "tiles::ToThirds", "tiles::ToThirds", 8),
        ("Bfloat16", "void", "tiles::Unchanged", 8),
        ("Tf32", "tiles::ToTf32", "tiles::ToTf32", 1),
    ],
)
def test_products_for_sm_80_assemble_without_spills(
    tmp_path: Path, unit: tuple[str | int, ...]
) -> None:
    """Every kind, for the architecture that it is meant for."""
    names = ("TYPE", "FORMAT_A", "FORMAT_B", "RUN")
    macros = [f"-D{n}={v}" for n, v in zip(names, unit, strict=True)]
    _assemble(PORTABLE, tmp_path, 6, *macros, arch="80")


def _assemble(
    source: Path, folder: Path, kernels: int, *macros: str, arch: str = "90a"
) -> None:
    command = [
        "nvcc", "-std=c++17", "-O3", "-cubin", "-Xptxas", "-v", f"-I{SKELETONS}", *macros,
        "-gencode", f"arch=compute_{arch},code=sm_{arch}", "-o", str(folder / "unit.cubin"),
        str(source),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not re.findall(r"C75\d\d", done.stderr), done.stderr
    stacks = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores", done.stderr)
    assert len(stacks) >= kernels and set(stacks) == {("0", "0")}, done.stderr


@pytest.mark.gpu
def test_results_against_float64_on_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    """The check of the bench: error table, ragged shapes, layouts, batches, special values."""
    bench = _bench("bench_gemm")
    rows = bench.check(bench.load(None))
    assert all(r.ok for r in rows), [r for r in rows if not r.ok]
    assert "BAD" not in capsys.readouterr().out


@pytest.mark.gpu
def test_native_results_against_float64_on_a_gpu(tmp_path: Path) -> None:
    """Types, tiles, layouts, ragged shapes, batches, holes and folds."""
    bench = _bench("bench_native")
    rows = bench.check(bench.build_all(tmp_path))
    assert all(r.ok for r in rows), [r for r in rows if not r.ok]


@pytest.mark.gpu
def test_portable_results_against_float64_on_a_gpu(tmp_path: Path) -> None:
    """Multiply-adds and mma.sync: tiles, layouts, ragged shapes, ranges, batches, holes, folds."""
    bench = _bench("bench_portable")
    rows = bench.check(bench.build_all(tmp_path, bench.UNITS))
    assert all(r.ok for r in rows), [r for r in rows if not r.ok]


def _bench(name: str) -> ModuleType:
    path = ROOT / "benchmarks" / "gemm" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
