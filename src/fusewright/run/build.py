"""Compiles C++ and CUDA text outside an emitted file, for tests and for the inner loop of tuning.

A build is content-addressed: the key is a digest of source, flags, compiler version and processor,
so the same text is compiled once per machine. A build happens in a private folder that is renamed
into place, so parallel builders never see half a result. The emitted file does not use this module:
it builds itself through `torch.utils.cpp_extension.load_inline`.
"""

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fusewright.errors import BuildError

CPP_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fPIC", "-shared")
CUDA_FLAGS = ("-std=c++17", "-O3", "-lineinfo", "-Xcompiler", "-fPIC", "-shared")
COMPILERS = ("g++", "clang++", "c++")
CUDA_HOMES = ("/usr/local/cuda", "/opt/cuda")
_ENTRY = re.compile(r"Compiling entry function '([^']+)' for '([^']+)'")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers")
_SMEM = re.compile(r"(\d+) bytes smem")


@dataclass(frozen=True, slots=True)
class KernelResources:
    """What ptxas reports of one kernel for one architecture.

    Stack and spills are bytes per thread. `smem` is bytes per block of static shared memory only:
    what a launch asks for dynamically is not known to ptxas.
    """

    name: str
    arch: str
    registers: int = 0
    stack: int = 0
    spill_stores: int = 0
    spill_loads: int = 0
    smem: int = 0


@dataclass(frozen=True, slots=True)
class CudaBinary:
    """A compiled CUDA shared library, ptxas' report per kernel and the compiler's warnings."""

    path: Path
    kernels: tuple[KernelResources, ...]
    warnings: tuple[str, ...]

    @property
    def spilling(self) -> tuple[str, ...]:
        """Names of the kernels that spill registers to local memory."""
        return tuple(k.name for k in self.kernels if k.spill_stores or k.spill_loads)

    @property
    def serialized_wgmma(self) -> tuple[str, ...]:
        """ptxas' C7510 messages: wgmma was serialized, which halves its speed."""
        return tuple(w for w in self.warnings if "C7510" in w)


def default_cache_dir() -> Path:
    """The folder that builds are kept in when the caller names none."""
    return Path.home() / ".cache" / "fusewright"


def find_compiler(preferred: str | None = None) -> str | None:
    """Path of a C++ compiler: `preferred` (name or path) if it exists, else g++, clang++ or c++.

    A preferred compiler that is missing is not replaced by another one: None is returned.
    """
    if preferred:
        return shutil.which(preferred)
    return next((found for name in COMPILERS if (found := shutil.which(name))), None)


def find_nvcc(preferred: str | None = None) -> str | None:
    """Path of nvcc: `preferred` (program or CUDA home), else on the PATH or in the usual homes."""
    if preferred:
        return shutil.which(preferred) or shutil.which("nvcc", path=f"{preferred}/bin")
    homes = (shutil.which("nvcc", path=f"{home}/bin") for home in CUDA_HOMES)
    return shutil.which("nvcc") or next((found for found in homes if found), None)


def compile_cpp(
    source: str,
    *,
    openmp: bool = True,
    cxx: str | None = None,
    flags: Sequence[str] = (),
    cache_dir: Path | None = None,
) -> Path:
    """Compiles C++17 text to a shared library and returns its path; the same text is compiled once.

    `flags` are added after the defaults (`CPP_FLAGS`, OpenMP), so they win. Raises BuildError when
    there is no compiler, or with the compiler's message and the path of the kept source.
    """
    compiler = find_compiler(cxx)
    if compiler is None:
        raise BuildError(_no_compiler(cxx))
    command = [compiler, *CPP_FLAGS, *(["-fopenmp"] if openmp else []), *flags]
    key = _digest(source, command, compiler, _processor())

    def build(folder: Path) -> None:
        _run_compiler(command, folder / "kernel.cpp", folder / "kernel.so", source, cache_dir)

    return _once(_root(cache_dir) / "cpp" / key, build) / "kernel.so"


def compile_cuda(
    source: str,
    arch: str,
    *,
    ptxas_report: bool = True,
    nvcc: str | None = None,
    flags: Sequence[str] = (),
    cache_dir: Path | None = None,
) -> CudaBinary:
    """Compiles CUDA text for `arch` ("sm_90a") to a shared library; needs nvcc but no GPU.

    With `ptxas_report` the result holds registers, spills and shared memory of each kernel, and
    every warning (C7510 among them). Raises BuildError as `compile_cpp` does.
    """
    compiler = find_nvcc(nvcc)
    if compiler is None:
        raise BuildError(
            "no nvcc was found: install the CUDA toolkit 12.0 or later and put its "
            "bin folder on the PATH (or give its path)"
        )
    target = f"-gencode=arch=compute_{arch.removeprefix('sm_')},code={arch}"
    verbose = ["-Xptxas", "-v"] if ptxas_report else []
    command = [compiler, *CUDA_FLAGS, target, *verbose, *flags]
    key = _digest(source, command, compiler, platform.machine())

    def build(folder: Path) -> None:
        log = _run_compiler(command, folder / "kernel.cu", folder / "kernel.so", source, cache_dir)
        kernels, warnings = parse_ptxas(log)
        report = {"kernels": [asdict(k) for k in kernels], "warnings": warnings}
        (folder / "report.json").write_text(json.dumps(report))

    folder = _once(_root(cache_dir) / "cuda" / key, build)
    report = json.loads((folder / "report.json").read_text())
    kernels = tuple(KernelResources(**k) for k in report["kernels"])
    return CudaBinary(folder / "kernel.so", kernels, tuple(report["warnings"]))


def parse_ptxas(log: str) -> tuple[list[KernelResources], list[str]]:
    """Reads the output of `nvcc -Xptxas -v`: resources per kernel, and the lines that warn."""
    kernels: list[dict[str, str | int]] = []
    warnings = []
    for line in log.splitlines():
        if entry := _ENTRY.search(line):
            kernels.append({"name": entry[1], "arch": entry[2]})
        elif kernels:
            kernels[-1].update(_resources(line))
        if "warning" in line.lower() or "Performance Loss" in line:
            warnings.append(line.strip())
    return [KernelResources(**k) for k in kernels], warnings  # pyright: ignore[reportArgumentType]


def _resources(line: str) -> dict[str, int]:
    found = {}
    if match := _SPILLS.search(line):
        found |= dict(
            zip(("stack", "spill_stores", "spill_loads"), map(int, match.groups()), strict=True)
        )
    if match := _REGISTERS.search(line):
        found["registers"] = int(match[1])
    if match := _SMEM.search(line):
        found["smem"] = int(match[1])
    return found


def _no_compiler(cxx: str | None) -> str:
    named = f"the C++ compiler {cxx!r} was not found" if cxx else "no C++ compiler was found"
    return f"{named}: install g++ or clang++ (Debian: apt install g++) or set CXX to one"


def _root(cache_dir: Path | None) -> Path:
    return (cache_dir or default_cache_dir()) / "build"


def _digest(source: str, command: Sequence[str], compiler: str, machine: str) -> str:
    parts = [source, *command, compiler_version(compiler), machine]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def compiler_version(compiler: str) -> str:
    """The compiler's own `--version` text: part of every build's key."""
    return _call([compiler, "--version"]).stdout


def _processor() -> str:
    """The processor's features: another one may not run what `-march=native` makes here."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    features = [x for x in lines if x.startswith(("flags", "Features", "model name"))][:2]
    return "\n".join([platform.machine(), platform.processor(), *features])


def _call(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, errors="replace")
    except OSError as error:
        raise BuildError(f"{command[0]} cannot be started: {error}") from error


def _run_compiler(
    command: Sequence[str], source_file: Path, output: Path, source: str, cache_dir: Path | None
) -> str:
    """Runs the compiler; returns what it printed; a refused source is kept under `failed/`."""
    source_file.write_text(source)
    done = _call([*command, str(source_file), "-o", str(output)])
    log = done.stdout + done.stderr
    if done.returncode == 0 and output.exists():
        return log
    name = _digest(source, command, command[0], "")
    kept = _root(cache_dir) / "failed" / f"{name}{source_file.suffix}"
    kept.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source_file, kept)
    raise BuildError(
        f"{Path(command[0]).name} refused the source (exit status {done.returncode}).\n"
        f"source kept at: {kept}\ncommand: {' '.join(command)}\n"
        f"{log.replace(str(source_file), str(kept))}"
    )


def _once(folder: Path, build: Callable[[Path], None]) -> Path:
    """Runs `build` in a private folder and renames it to `folder`, unless that exists already."""
    if folder.exists():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        private = Path(tempfile.mkdtemp(prefix=".building-", dir=folder.parent))
    except OSError as error:
        raise BuildError(f"the build cache {folder.parent} cannot be written: {error}") from error
    try:
        build(private)
        _publish(private, folder)
    finally:
        shutil.rmtree(private, ignore_errors=True)
    return folder


def _publish(private: Path, folder: Path) -> None:
    try:
        os.rename(private, folder)
    except OSError as error:
        if not folder.exists():  # else another builder of the same text came first: same content
            raise BuildError(f"cannot move the build to {folder}: {error}") from error
