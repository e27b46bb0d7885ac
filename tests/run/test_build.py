"""Building C++ and CUDA text: what comes back, what is reused, what a refusal says."""

import ctypes
import threading
from pathlib import Path

import pytest

from fusewright.errors import BuildError
from fusewright.run import build

ADD = 'extern "C" int add(int a, int b) { return a + b; }\n'
needs_nvcc = pytest.mark.skipif(build.find_nvcc() is None, reason="no nvcc")


def test_compiled_function_runs(tmp_path: Path):
    library = build.compile_cpp(ADD, cache_dir=tmp_path)
    assert ctypes.CDLL(str(library)).add(2, 3) == 5


def test_same_text_is_compiled_once_and_other_flags_are_another_build(tmp_path: Path):
    first = build.compile_cpp(ADD, cache_dir=tmp_path)
    stamp = first.stat().st_mtime_ns
    assert build.compile_cpp(ADD, cache_dir=tmp_path).stat().st_mtime_ns == stamp
    assert build.compile_cpp(ADD, openmp=False, cache_dir=tmp_path) != first


def test_openmp_is_on_by_default(tmp_path: Path):
    text = '#include <omp.h>\nextern "C" int threads() { return omp_get_max_threads(); }\n'
    assert ctypes.CDLL(str(build.compile_cpp(text, cache_dir=tmp_path))).threads() >= 1


def test_refused_source_is_kept_and_the_message_is_shown(tmp_path: Path):
    with pytest.raises(BuildError, match="undeclared_name") as caught:
        build.compile_cpp('extern "C" int f() { return undeclared_name; }\n', cache_dir=tmp_path)
    kept = next(tmp_path.glob("build/failed/*.cpp"))
    assert str(kept) in str(caught.value) and "undeclared_name" in kept.read_text()
    assert not list(tmp_path.glob("build/cpp/*"))


def test_missing_compiler_is_named(tmp_path: Path):
    with pytest.raises(BuildError, match="no-such-compiler"):
        build.compile_cpp(ADD, cxx="no-such-compiler", cache_dir=tmp_path)


def test_parallel_builders_of_one_text_agree(tmp_path: Path):
    found: list[Path] = []

    def compile_once() -> None:
        found.append(build.compile_cpp(ADD, cache_dir=tmp_path))

    threads = [threading.Thread(target=compile_once) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3 and len(set(found)) == 1
    assert not list(tmp_path.glob("build/cpp/.building-*"))


def test_unwritable_cache_is_a_clear_error(tmp_path: Path):
    blocker = tmp_path / "file"
    blocker.write_text("")
    with pytest.raises(BuildError, match="cannot be written"):
        build.compile_cpp(ADD, cache_dir=blocker)


def test_ptxas_report_is_read():
    log = """ptxas info    : 0 bytes gmem
ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized
ptxas info    : Compiling entry function 'f' for 'sm_90a'
ptxas info    : Function properties for f
    16 bytes stack frame, 12 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 1024 bytes smem
ptxas info    : Compiling entry function 'g' for 'sm_90a'
ptxas info    : Used 16 registers, used 0 barriers
"""
    kernels, warnings = build.parse_ptxas(log)
    assert kernels == [
        build.KernelResources("f", "sm_90a", 255, 16, 12, 8, 1024),
        build.KernelResources("g", "sm_90a", registers=16),
    ]
    binary = build.CudaBinary(Path("x"), tuple(kernels), tuple(warnings))
    assert binary.spilling == ("f",) and len(binary.serialized_wgmma) == 1


@needs_nvcc
def test_cuda_text_compiles_without_a_gpu_and_reports(tmp_path: Path):
    text = (
        'extern "C" __global__ void scale(float* x, float s) {\n'
        "  __shared__ float tile[64]; tile[threadIdx.x] = x[threadIdx.x]; __syncthreads();\n"
        "  x[threadIdx.x] = tile[63 - threadIdx.x] * s; }\n"
    )
    first = build.compile_cuda(text, "sm_90a", cache_dir=tmp_path)
    again = build.compile_cuda(text, "sm_90a", cache_dir=tmp_path)
    assert first == again and first.path.exists()
    (kernel,) = first.kernels
    assert (kernel.name, kernel.arch, kernel.smem) == ("scale", "sm_90a", 256)
    assert kernel.registers > 0 and first.spilling == ()


@needs_nvcc
def test_refused_cuda_text_is_kept(tmp_path: Path):
    with pytest.raises(BuildError, match="not_a_type"):
        build.compile_cuda("__global__ void f(not_a_type x) {}\n", "sm_80", cache_dir=tmp_path)
    assert list(tmp_path.glob("build/failed/*.cu"))
