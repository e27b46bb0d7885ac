"""What a candidate did to its process: patched functions, changed flags, threads, memory contents.

A worker takes a snapshot before it imports the user's file and compares afterwards. It also fills
memory with a pattern that no correct program reads: glibc fills every block it hands out (so what
`torch.empty` returns is never by luck a right answer), and freed CUDA blocks are filled with NaN.
"""

import builtins
import ctypes
import json
import math
import os
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

# What a verifier, a benchmark or a user's program must be able to rely on.
_WATCHED: tuple[ModuleType | type, ...] = (
    builtins,
    json,
    math,
    os,
    random,
    time,
    torch,
    torch.Tensor,
    torch.nn.Module,
    torch.nn.functional,
    torch.autograd,
    torch.cuda,
    torch.cuda.Event,
    torch.cuda.Stream,
    torch.random,
    torch.testing,
)
_M_PERTURB = -6
# glibc fills new blocks with the complement of this byte and freed ones with the byte itself.
# 0x7F7F7F7F is 3.4e38 as float32, a NaN as float16, 1.4e306 as float64, out of range as an index.
_PERTURB_BYTE = 0x80
_LARGE_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Snapshot:
    """State of the process before the user's code: watched callables, flags, threads."""

    callables: dict[tuple[str, str], int]
    flags: dict[str, Any]
    threads: frozenset[int]


def take_snapshot() -> Snapshot:
    threads = frozenset(t.ident or 0 for t in threading.enumerate())
    return Snapshot(watched_callables(), global_flags(), threads)


def watched_callables() -> dict[tuple[str, str], int]:
    return {
        (owner.__name__, name): id(value)
        for owner in _WATCHED
        for name, value in list(vars(owner).items())
        if callable(value)
    }


def global_flags() -> dict[str, Any]:
    """Flags that change the results of the rest of the user's program."""
    readers: dict[str, Callable[[], Any]] = {
        "default dtype": torch.get_default_dtype,
        "float32 matmul precision": torch.get_float32_matmul_precision,
        "matmul.allow_tf32": lambda: torch.backends.cuda.matmul.allow_tf32,
        "cudnn.allow_tf32": lambda: torch.backends.cudnn.allow_tf32,
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled,
        "grad mode": torch.is_grad_enabled,
        "autocast": torch.is_autocast_enabled,
        "denormal numbers": lambda: torch.full((), 1e-42).mul(1.0).item() > 0,
    }
    return {name: _read_flag(read) for name, read in readers.items()}


def _read_flag(read: Callable[[], Any]) -> str:
    """A flag's value; torch refuses to read its old TF32 flags once the new ones were written."""
    try:
        return str(read())
    except RuntimeError as error:
        return f"unreadable ({str(error).splitlines()[0]})"


def findings(before: Snapshot) -> list[str]:
    """Sentences for everything that the user's code did to its process."""
    return [
        *_patched(before.callables),
        *_changed_flags(before.flags),
        *_foreign_threads(before.threads),
    ]


def _patched(before: dict[tuple[str, str], int]) -> list[str]:
    now = watched_callables()
    return [
        f"{owner}.{name} was replaced"
        for (owner, name), identity in before.items()
        if now.get((owner, name)) != identity
    ]


def _changed_flags(before: dict[str, Any]) -> list[str]:
    now = global_flags()
    return [
        f"the global setting '{name}' was changed from {old} to {now[name]}"
        for name, old in before.items()
        if now[name] != old
    ]


def _foreign_threads(before: frozenset[int]) -> list[str]:
    """Python threads that the user's code left running; torch's own helpers are not counted."""
    return [
        f"a thread is still running: {thread.name}"
        for thread in threading.enumerate()
        if thread.ident not in before and not _is_torch_thread(thread)
    ]


def _is_torch_thread(thread: threading.Thread) -> bool:
    target = getattr(thread, "_target", None)
    return (getattr(target, "__module__", None) or "").startswith("torch.")


def child_processes() -> list[str]:
    """Names of the processes that this one started and that still live."""
    found: list[str] = []
    for task in sorted(Path("/proc/self/task").iterdir()):
        listing = task / "children"
        for pid in listing.read_text().split() if listing.exists() else []:
            name = Path(f"/proc/{pid}/comm")
            found += [name.read_text().strip()] if name.exists() else []
    return found


def poison_host_memory() -> bool:
    """From now on every block of malloc is filled; False where the C library cannot do it."""
    mallopt: Callable[[int, int], int] | None = getattr(ctypes.CDLL(None), "mallopt", None)
    return bool(mallopt is not None and mallopt(_M_PERTURB, _PERTURB_BYTE))


def poison_device_memory(device: torch.device, sizes: list[int]) -> None:
    """Fill free CUDA blocks of `sizes` bytes, and of powers of two, with NaN. No-op on the CPU.

    Two blocks of each size; of a large one a single one, which the next output will lie in.
    """
    if device.type != "cuda":
        return
    wanted = [*sizes, *(1 << bits for bits in range(9, 25))]
    free, _ = torch.cuda.mem_get_info(device)
    for size in wanted:
        count = 1 if size > _LARGE_BYTES else 2
        if 2 * size < free:
            blocks = [
                torch.full((max(size // 4, 1),), math.nan, device=device) for _ in range(count)
            ]
            del blocks
    torch.cuda.synchronize(device)
