"""What this machine has and lacks for running fusewright, and what to install. Changes nothing."""

import ctypes.util
import importlib.metadata
import importlib.util
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import RenderableType
from rich.table import Table

from fusewright.errors import BuildError
from fusewright.run.build import (
    compile_cpp,
    compiler_version,
    default_cache_dir,
    find_compiler,
    find_nvcc,
)

OLDEST_PYTHON = (3, 10)
OLDEST_TORCH = (2, 4)
OPENMP_PROBE = '#include <omp.h>\nextern "C" int threads() { return omp_get_max_threads(); }\n'
MARKS = {"ok": "[green]yes[/]", "missing": "[red]no[/]", "optional": "[yellow]no (optional)[/]"}

State = Literal["ok", "missing", "optional"]


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked for: `missing` keeps fusewright from working, `optional` costs a feature."""

    name: str
    state: State
    detail: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """All checks of one machine."""

    checks: tuple[Check, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing that is needed is missing."""
        return all(check.state != "missing" for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON-ready data."""
        return {"healthy": self.healthy, "checks": [asdict(check) for check in self.checks]}


def doctor(
    *, cxx: str | None = None, nvcc: str | None = None, cache_dir: Path | None = None
) -> DoctorReport:
    """Looks for everything that some command needs; never raises for what is missing."""
    checks = [_python(), _torch(), _gpu(), _compiler(cxx), _openmp(cxx)]
    checks += [_nvcc(nvcc), _nvrtc(), _ninja(), _setuptools(), _cache(cache_dir)]
    return DoctorReport(tuple(checks))


def render_doctor(report: DoctorReport) -> RenderableType:
    """The report as a rich table."""
    table = Table(title="fusewright doctor")
    for column in ("what", "there", "detail", "what to do"):
        table.add_column(column, overflow="fold")
    for check in report.checks:
        table.add_row(check.name, MARKS[check.state], check.detail, check.remedy)
    return table


def _python() -> Check:
    detail = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info[:2] >= OLDEST_PYTHON:
        return Check("Python", "ok", detail)
    return Check("Python", "missing", detail, "install Python 3.10 or later")


def _torch() -> Check:
    if importlib.util.find_spec("torch") is None:
        return Check("PyTorch", "missing", "not installed", "pip install 'torch>=2.4'")
    import torch

    detail = f"{torch.__version__}, CUDA {torch.version.cuda or 'none (a CPU build)'}"
    major, minor = (int(part) for part in torch.__version__.split(".")[:2])
    if (major, minor) >= OLDEST_TORCH:
        return Check("PyTorch", "ok", detail)
    return Check("PyTorch", "missing", detail, "pip install 'torch>=2.4'")


def _gpu() -> Check:
    if importlib.util.find_spec("torch") is None:
        return Check("CUDA device", "optional", "unknown without PyTorch")
    import torch

    if torch.cuda.is_available():
        names = [_describe_gpu(index) for index in range(torch.cuda.device_count())]
        return Check("CUDA device", "ok", "; ".join(names))
    if shutil.which("nvidia-smi"):
        remedy = "install a PyTorch build for CUDA, or a driver that fits it"
        return Check("CUDA device", "optional", "a driver is there, torch sees no device", remedy)
    remedy = "none needed to emit and compile CUDA files; running them needs an NVIDIA GPU"
    return Check("CUDA device", "optional", "none; the cpu target works", remedy)


def _describe_gpu(index: int) -> str:
    import torch

    major, minor = torch.cuda.get_device_capability(index)
    memory = torch.cuda.get_device_properties(index).total_memory / (1 << 30)
    return f"{torch.cuda.get_device_name(index)} (sm_{major}{minor}, {memory:.0f} GiB)"


def _compiler(cxx: str | None) -> Check:
    found = find_compiler(cxx)
    if found is None:
        detail = f"{cxx} was not found" if cxx else "neither g++ nor clang++ is on the PATH"
        remedy = "Debian, Ubuntu: apt install g++; Fedora: dnf install gcc-c++; or set CXX"
        return Check("C++ compiler", "missing", detail, remedy)
    return _answering("C++ compiler", found, "reinstall the compiler", "missing")


def _answering(name: str, program: str, remedy: str, otherwise: State) -> Check:
    """A program that is there counts only if it tells its version."""
    try:
        lines = compiler_version(program).splitlines()
    except BuildError as error:
        return Check(name, otherwise, str(error), remedy)
    version = next((x for x in lines if "release" in x), lines[0] if lines else "")
    return Check(name, "ok", f"{version.strip()} at {program}")


def _openmp(cxx: str | None) -> Check:
    remedy = "Debian, Ubuntu: apt install libgomp1 (g++) or libomp-dev (clang++)"
    with tempfile.TemporaryDirectory(prefix="fusewright-doctor-") as folder:
        try:
            compile_cpp(OPENMP_PROBE, cxx=cxx, cache_dir=Path(folder))
        except BuildError as error:
            return Check("OpenMP", "missing", str(error).splitlines()[0], remedy)
    return Check("OpenMP", "ok", "a test program builds")


def _nvcc(nvcc: str | None) -> Check:
    remedy = "install the CUDA toolkit 12.0 or later and put its bin folder on the PATH"
    found = find_nvcc(nvcc)
    if found is None:
        return Check("nvcc", "optional", "not found; CUDA files cannot be compiled here", remedy)
    return _answering("nvcc", found, remedy, "optional")


def _nvrtc() -> Check:
    library = ctypes.util.find_library("nvrtc") or _bundled_nvrtc()
    if library:
        return Check("NVRTC", "ok", library)
    remedy = "comes with PyTorch builds for CUDA and with the CUDA toolkit"
    return Check("NVRTC", "optional", "not found; tuning compiles with nvcc instead", remedy)


def _bundled_nvrtc() -> str | None:
    """The library that PyTorch's CUDA wheels bring along."""
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"] or ""
        if name.startswith("nvidia-cuda-nvrtc"):
            return f"{name} {distribution.version}"
    return None


def _ninja() -> Check:
    found = shutil.which("ninja")
    if found and _runs([found, "--version"]):
        return Check("ninja", "ok", found)
    beside = Path(sys.executable).parent / "ninja"
    if beside.exists():
        remedy = f"activate the environment, or add {beside.parent} to the PATH"
        return Check("ninja", "missing", f"{beside} is not on the PATH", remedy)
    return Check("ninja", "missing", "not found; emitted files build with it", "pip install ninja")


def _runs(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=30).returncode == 0
    except OSError:
        return False


def _setuptools() -> Check:
    if importlib.util.find_spec("setuptools"):
        return Check("setuptools", "ok", importlib.metadata.version("setuptools"))
    detail = "not installed; torch.utils.cpp_extension imports it"
    return Check("setuptools", "missing", detail, "pip install setuptools")


def _cache(cache_dir: Path | None) -> Check:
    folder = cache_dir or default_cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        remedy = f"make {folder} writable, or set HOME to a folder that is"
        return Check("build cache", "missing", f"{folder}: {error.strerror}", remedy)
    return Check("build cache", "ok", f"{folder} is writable")
