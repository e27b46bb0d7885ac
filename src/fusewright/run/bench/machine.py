"""What a measurement ran on: versions, device, processor, precision flags; and clocks and power.

Facts and readings only; nothing here is timed and no setting of a device is ever changed.
"""

import contextlib
import datetime
import os
import platform
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

import torch

QUERY = "clocks.sm,clocks.mem,power.draw,temperature.gpu"
READINGS = ("sm_mhz", "memory_mhz", "power_w", "temperature_c")


def environment(device: torch.device, cache_bytes: int) -> dict[str, Any]:
    """Versions and device facts that a figure means nothing without."""
    facts = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "device": device_name(device),
        "device_type": device.type,
        "cpu": cpu_name(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "cores": _usable_cores(),
        "cache_bytes": cache_bytes,
        "flags": precision_flags(),
    }
    return facts | (_cuda_facts(device) if device.type == "cuda" else {"load": os.getloadavg()})


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cuda_facts(device: torch.device) -> dict[str, Any]:
    major, minor = torch.cuda.get_device_capability(device)
    return {
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "driver": (_nvidia_smi("driver_version") or [None])[0],
        "capability": f"{major}.{minor}",
        "memory_bytes": torch.cuda.get_device_properties(device).total_memory,
    }


def device_name(device: torch.device) -> str:
    """Marketing name of the device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()


def cpu_name() -> str:
    """Model name of the processor, or the architecture where it cannot be read."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def precision_flags() -> dict[str, Any]:
    """torch's global settings that change what arithmetic, and so what speed, is being compared."""
    return {
        "matmul_allow_tf32": torch.backends.cuda.matmul.allow_tf32,
        "cudnn_allow_tf32": torch.backends.cudnn.allow_tf32,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "threads": torch.get_num_threads(),
        "default_dtype": str(torch.get_default_dtype()),
        "flush_denormal": bool(torch.tensor([1e-40]).mul(1.0).item() == 0),
    }


def _nvidia_smi(query: str) -> list[str] | None:
    """One nvidia-smi query of the first visible device, or None where there is no such program."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, f"--query-gpu={query}", "--format=csv,noheader,nounits", "-i", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return [x.strip() for x in done.stdout.split(",")] if done.returncode == 0 else None


class Sensors:
    """Samples clocks, power and temperature of the GPU; empty where they cannot be read."""

    def __init__(self, device: torch.device) -> None:
        self._samples: list[dict[str, float]] = []
        self._nvml = _open_nvml() if device.type == "cuda" else None
        self._readable = device.type == "cuda"

    def sample(self, *, thorough: bool = False) -> None:
        """Takes one reading; without NVML only a `thorough` one does, since nvidia-smi is slow."""
        if not self._readable:
            return
        if self._nvml is not None:
            self._samples.append(_read_nvml(*self._nvml))
        elif thorough and (values := _nvidia_smi(QUERY)):
            self._samples.append(_parse_readings(values))

    def summary(self) -> dict[str, Any]:
        """Least, median and greatest of each reading."""
        found: dict[str, Any] = {"samples": len(self._samples)}
        for name in READINGS:
            if values := [sample[name] for sample in self._samples if name in sample]:
                found[name] = {"min": min(values), "median": median(values), "max": max(values)}
        return found


def _parse_readings(values: list[str]) -> dict[str, float]:
    """Readings by name; what the driver does not tell ("[N/A]") is left out."""
    pairs = zip(READINGS, values, strict=True)
    return {name: float(v) for name, v in pairs if v.replace(".", "", 1).isdigit()}


def _open_nvml() -> tuple[Any, Any] | None:
    """NVML and the first device's handle, if the optional bindings and the driver are there."""
    try:
        nvml = import_module("pynvml")
        nvml.nvmlInit()
        return nvml, nvml.nvmlDeviceGetHandleByIndex(0)
    except ImportError:
        return None
    except Exception as error:  # NVMLError exists only if the bindings do
        if type(error).__name__.startswith("NVML"):
            return None
        raise


def _read_nvml(nvml: Any, handle: Any) -> dict[str, float]:
    return {
        "sm_mhz": float(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
        "memory_mhz": float(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)),
        "power_w": nvml.nvmlDeviceGetPowerUsage(handle) / 1e3,
        "temperature_c": float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
    }


@contextlib.contextmanager
def pinned_threads(device: torch.device) -> Iterator[None]:
    """Inside, each thread of this process stays on one core, on the CPU: a thread that the system
    moves leaves its cache behind. A no-op for CUDA, on a single core, and where nothing can be set.

    Threads are taken in the order of their creation, so those of one pool get cores of their own;
    pools that must be pinned have to exist. (OMP_PROC_BIND would bind this thread before a second
    OpenMP runtime, the candidate's, counts the cores that it may use.)
    """
    if device.type != "cpu" or not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = sorted(os.sched_getaffinity(0))
    first, *rest = sorted(_tid(task) for task in Path("/proc/self/task").iterdir())
    _bind(first, cores[:1])
    for k, thread in enumerate(rest if len(cores) > 1 else ()):
        _bind(thread, [cores[1 + k % (len(cores) - 1)]])
    try:
        yield
    finally:
        for task in Path("/proc/self/task").iterdir():
            _bind(_tid(task), cores)


def _tid(task: Path) -> int:
    return int(task.name)


def _bind(thread: int, cores: Sequence[int]) -> None:
    with contextlib.suppress(ProcessLookupError):  # it may just have ended
        os.sched_setaffinity(thread, cores)


def python_threads() -> int:
    """Number of Python threads alive: a candidate that works behind the timer's back needs one."""
    return threading.active_count()
