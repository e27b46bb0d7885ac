"""The device of this machine that kernels would run on, and what moving inputs there does."""

from contextlib import nullcontext
from dataclasses import replace

import torch
from torch.utils import _pytree as pytree

from fusewright.problem import Problem


def detected_target() -> str:
    """The most specific target that this machine's first GPU runs; `cpu` where there is none."""
    if not torch.cuda.is_available():
        return "cpu"
    major, minor = torch.cuda.get_device_capability()
    if (major, minor) == (9, 0):
        return "cuda:sm_90a"
    return "cuda:sm_80" if major == 8 else "cuda"


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
