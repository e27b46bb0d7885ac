"""The Hopper convolution: copies, products and sums on the CPU, assembly gates."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SKELETONS = ROOT / "src" / "fusewright" / "emit" / "skeletons"
SHIM = Path(__file__).resolve().parent / "gemm_shim"
PARTS = ("raster.cuh", "unit_finish.cuh", "slab_sm90.cuh", "conv_sm90.cuh")
STANDINS = ("sm90.cuh", "sm90_shared.cuh", "sm90_boxes.cuh", "tensor_map.cuh")
NVCC = ("nvcc", "-std=c++17", "-O3", "-gencode", "arch=compute_90a,code=sm_90a", f"-I{SKELETONS}")
# Two kernels per tile: one stores, one folds over the pixels.
UNIT = """
#include "conv_sm90_launch.cuh"
using Tile = conv90::Tile<conv90::TYPE, SHAPE>;
using Value = Tile::Type::Handed;
struct Stores {
    using Value = ::Value;
    static constexpr int kRun = RUN, kPartialWords = 0;
    static constexpr bool kFoldsOverN = true;
    const float* scale;
    const float* bias;
    float* out;
    int rows, columns;
    __device__ void apply(int batch, int m, int n, const Value (&acc)[kRun], float*) const {
        const float s = __ldg(scale + batch), t = __ldg(bias + m);
        float* target = out + (int64_t(batch) * rows + m) * columns + n;
        for (int v = 0; v < kRun; ++v) target[v] = fmaxf(float(acc[v]) * s + t, 0.0f);
    }
    __device__ static void partial_identity(float*) {}
    __device__ static void partial_merge(float*, const float*) {}
    __device__ void finish(int, int, const float*) const {}
};
struct Folds : Stores {
    static constexpr int kPartialWords = 1;
    __device__ void apply(int batch, int m, int, const Value (&acc)[kRun], float* p) const {
        for (int v = 0; v < kRun; ++v) p[0] = fmaxf(p[0], float(acc[v]) * __ldg(bias + m));
    }
    __device__ static void partial_identity(float* p) { p[0] = -INFINITY; }
    __device__ static void partial_merge(float* p, const float* q) { p[0] = fmaxf(p[0], q[0]); }
    __device__ void finish(int batch, int m, const float* p) const { out[batch * rows + m] = p[0]; }
};
extern "C" int stores(const conv90::Problem* p, Stores hole, void* space, cudaStream_t stream) {
    return conv90::run<Tile>(*p, hole, space, stream);
}
extern "C" int folds(const conv90::Problem* p, Folds hole, void* space, cudaStream_t stream) {
    return conv90::run<Tile>(*p, hole, space, stream);
}
"""


def test_convolutions_on_the_cpu(tmp_path: Path) -> None:
    """Every sum of whole convolutions: boxes with zeros around, swizzles, shared taps, strides,
    clusters, ragged tiles, the way to the hole, and that every partial result is written."""
    for part in (*PARTS, "conv_sm90_maps.cuh"):
        shutil.copy(SKELETONS / part, tmp_path)
    for part in STANDINS:
        shutil.copy(SHIM / part, tmp_path)
    program = tmp_path / "check"
    command = ["g++", "-std=c++20", "-O2", "-w", f"-I{tmp_path}", "-o", str(program)]
    subprocess.run([*command, str(SHIM / "check_conv.cpp")], check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
@pytest.mark.parametrize(
    ("kind", "shape", "run"),
    [
        ("RoundedFloat16", "2, 256, 64, 3, 128, 2, 1, 130, true", 4),
        ("RoundedFloat16", "2, 256, 128, 3, 128, 2, 1, 130, true, 2", 8),
        ("Bfloat16", "2, 256, 64, 3, 64, 4, 1, 66, true, 2", 8),
        ("RoundedBfloat16", "1, 256, 32, 3, 28, 4, 2, 30, false", 1),
        ("Float16", "2, 256, 128, 1, 256, 1, 1, 256, false", 8),
        ("RoundedFloat16", "1, 128, 128, 1, 7, 7, 1, 7, true", 1),
    ],
)
def test_convolutions_assemble_without_spills_or_serialisation(
    tmp_path: Path, kind: str, shape: str, run: int
) -> None:
    """Nothing of the sums leaves the registers, and no product waits for the one before."""
    unit = tmp_path / "unit.cu"
    macros = f"#define TYPE {kind}\n#define SHAPE {shape}\n#define RUN {run}\n"
    unit.write_text(macros + UNIT, encoding="utf-8")
    target = str(tmp_path / "unit.cubin")
    command = [*NVCC, "-cubin", "-Xptxas", "-v", "-o", target, str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not re.findall(r"C75\d\d", done.stderr), done.stderr
    stacks = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores", done.stderr)
    assert len(stacks) >= 2 and set(stacks) == {("0", "0")}, done.stderr


@pytest.mark.gpu
def test_convolutions_against_doubles_on_a_gpu(tmp_path: Path) -> None:
    """The check of the benchmark: tiles of every kind on ragged problems, sums and folds."""
    sources = sorted(str(p) for p in (ROOT / "benchmarks" / "conv").glob("*.cu"))
    program = str(tmp_path / "conv")
    subprocess.run([*NVCC, "-o", program, *sources], check=True)
    done = subprocess.run([program, "check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
