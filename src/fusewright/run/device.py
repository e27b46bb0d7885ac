"""The devices of this machine: which kernels would run there, their memory, moving inputs there."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from fusewright.problem import Problem
from fusewright.target.arch import ARCHS


def detected_target() -> str:
    """The most specific target that this machine's first GPU runs; `cpu` where there is none."""
    if not torch.cuda.is_available():
        return "cpu"
    capability = torch.cuda.get_device_capability()
    return next((a.name for a in ARCHS if a.runs_on(capability)), "cuda")


def devices(kind: str) -> list[dict[str, Any]]:
    """The devices to spread work over: `name`, free `bytes`, and what CUDA_VISIBLE_DEVICES must be
    for a process that is to see that one alone (None on the CPU). `kind` is auto, cpu or cuda."""
    if kind == "cpu" or (kind == "auto" and not torch.cuda.is_available()):
        return [{"name": "cpu", "bytes": free_memory(torch.device("cpu")), "visible": None}]
    return [_gpu(torch.device("cuda", k)) for k in range(torch.cuda.device_count())]


def _gpu(device: torch.device) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(device)
    visible = f"GPU-{properties.uuid}"
    return {"name": properties.name, "bytes": free_memory(device), "visible": visible}


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on the device (Linux), or 8 GB where nobody tells."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    free = host_memory()
    return 8 << 30 if free is None else free


def host_memory() -> int | None:
    """Bytes that this machine can still hand out; None where it does not tell (not Linux)."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = next((x for x in lines if x.startswith("MemAvailable:")), None)
    return int(found.split()[1]) << 10 if found else None


def moved(problem: Problem) -> Problem:
    """The problem with the strides that its inputs on the CPU get when they are copied to a GPU.

    `Tensor.to` keeps strides that enumerate the elements without holes or overlap, in any order of
    axes, and makes others row-major. Nothing is copied where the problem's tensors are fake.
    """

    with problem.fake_mode or nullcontext():
        return replace(problem, inputs=pytree.tree_map_only(torch.Tensor, _moved, problem.inputs))


def _moved(x: torch.Tensor) -> torch.Tensor:
    if x.device.type != "cpu" or is_dense(tuple(x.shape), x.stride()):
        return x
    return torch.empty(x.shape, dtype=x.dtype).copy_(x)


def is_dense(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether the strides enumerate the elements without holes or overlap."""
    step = 1
    for s, n in sorted((s, n) for s, n in zip(strides, shape, strict=True) if n != 1):
        if s != step:
            return 0 in shape
        step *= n
    return True
