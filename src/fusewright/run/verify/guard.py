"""What a candidate did to its process: patched functions, changed flags, threads, memory contents.

A worker takes a snapshot before it imports the user's file and compares afterwards. It also fills
memory with a pattern that no correct program reads: glibc fills every block it hands out (so what
`torch.empty` returns is never by luck a right answer), and freed CUDA blocks are filled with NaN.
"""

import builtins
import copy
import ctypes
import gc
import json
import math
import os
import pickle
import random
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy
import torch
from torch.utils import _pytree as pytree

# What a verifier, a benchmark or a user's program must be able to rely on, beside every layer of
# torch.nn and the functions of this package.
_WATCHED: tuple[ModuleType | type, ...] = (
    builtins,
    copy,
    gc,
    json,
    math,
    os,
    pickle,
    random,
    threading,
    time,
    numpy,
    torch,
    torch.Tensor,
    torch.nn.functional,
    torch.autograd,
    torch.backends.mkldnn,
    torch.cuda,
    torch.cuda.Event,
    torch.cuda.Stream,
    torch.linalg,
    torch.random,
    torch.testing,
    pytree,
)
_DYNAMO = re.compile(r"/torch/(_compile|_dynamo/\w+)\.py$")
_PACKAGE = __name__.partition(".")[0]
_M_PERTURB = -6
# glibc fills new blocks with the complement of this byte and freed ones with the byte itself.
# 0x7F7F7F7F is 3.4e38 as float32, a NaN as float16, 1.4e306 as float64, out of range as an index.
_PERTURB_BYTE = 0x80
_LARGE_BYTES = 256 << 20


Owner = ModuleType | type


@dataclass(frozen=True, slots=True)
class Snapshot:
    """State of the process before the user's code: watched callables with their code, modules by
    name, flags, threads."""

    callables: tuple[tuple[Owner, dict[str, tuple[Any, Any]]], ...]
    flags: dict[str, Any]
    threads: frozenset[int]


def take_snapshot(extra: Iterable[type] = ()) -> Snapshot:
    """What `findings` compares with. extra: further classes that nobody may change."""
    threads = frozenset(t.ident or 0 for t in threading.enumerate())
    layers = [c for c in vars(torch.nn).values() if isinstance(c, type)]
    owners = dict.fromkeys((*_WATCHED, *layers, *_own_code(), *extra))
    return Snapshot(tuple((o, _callables(o)) for o in owners), global_flags(), threads)


def _own_code() -> list[Owner]:
    """The modules of this package, and their classes."""
    modules = [m for name, m in sorted(sys.modules.items()) if is_own(name)]
    found = [v for m in modules for v in vars(m).values() if isinstance(v, type)]
    return [*modules, *(c for c in found if is_own(c.__module__))]


def is_own(module: str) -> bool:
    """Whether a module of that name belongs to this package."""
    return module == _PACKAGE or module.startswith(_PACKAGE + ".")


def _callables(owner: Owner) -> dict[str, tuple[Any, Any]]:
    """By name each callable of a module or class, with its code where that is Python."""
    return {
        name: (value, getattr(value, "__code__", None))
        for name, value in list(vars(owner).items())
        if callable(value) or isinstance(value, staticmethod | classmethod | property)
    }


def hide_own_modules() -> None:
    """Take this package out of `sys.modules` and of the arguments: what is loaded goes on to work,
    but a user's file cannot see who runs it, nor reach it by name."""
    for name in [name for name in sys.modules if is_own(name)]:
        del sys.modules[name]
    sys.argv[:] = [""]


def global_flags() -> dict[str, Any]:
    """Flags that change the results of the rest of the user's program."""
    readers: dict[str, Callable[[], Any]] = {
        "default dtype": torch.get_default_dtype,
        "float32 matmul precision": torch.get_float32_matmul_precision,
        "matmul.allow_tf32": lambda: torch.backends.cuda.matmul.allow_tf32,
        "cudnn.allow_tf32": lambda: torch.backends.cudnn.allow_tf32,
        "cudnn.enabled": lambda: torch.backends.cudnn.enabled,
        "cudnn.benchmark": lambda: torch.backends.cudnn.benchmark,
        "mkldnn.enabled": lambda: torch.backends.mkldnn.enabled,  # type: ignore[attr-defined]
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled,
        "default device": torch.get_default_device,
        "threads": torch.get_num_threads,
        "cores": lambda: sorted(os.sched_getaffinity(0)),
        "priority": lambda: os.getpriority(os.PRIO_PROCESS, 0),
        "garbage collection": gc.isenabled,
        "profiler": sys.getprofile,
        "tracer": sys.gettrace,
        "hooks of all modules": _global_hooks,
        "modes of torch functions": torch._C._len_torch_function_stack,
        "modes of torch dispatch": torch._C._len_torch_dispatch_stack,
        "grad mode": torch.is_grad_enabled,
        "autocast": torch.is_autocast_enabled,
        "denormal numbers": lambda: torch.full((), 1e-42).mul(1.0).item() > 0,
    }
    return {name: _read_flag(read) for name, read in readers.items()}


def _global_hooks() -> int:
    """Hooks that are called with every module, whoever made it."""
    tables = vars(torch.nn.modules.module).items()
    return sum(len(table) for name, table in tables if name.startswith("_global_") and table)


def _read_flag(read: Callable[[], Any]) -> str:
    """A flag's value; torch refuses to read its old TF32 flags once the new ones were written, and
    not every system has cores to choose from."""
    try:
        return str(read())
    except (RuntimeError, AttributeError) as error:
        return f"unreadable ({str(error).splitlines()[0]})"


def findings(before: Snapshot) -> list[str]:
    """Sentences for everything that the user's code did to its process."""
    return [*patched(before), *changed_flags(before), *foreign_threads(before)]


def patched(before: Snapshot) -> list[str]:
    """Watched functions that are others now, or have other code, and modules that were swapped."""
    swapped = [
        f"the module {owner.__name__} was replaced"
        for owner, _ in before.callables
        if isinstance(owner, ModuleType)
        and not is_own(owner.__name__)
        and sys.modules.get(owner.__name__) is not owner
    ]
    return swapped + [
        f"{owner.__name__}.{name} was replaced"
        for owner, known in before.callables
        for name, (value, code) in known.items()
        if _differs(vars(owner).get(name), value, code)
    ]


def _differs(now: Any, value: Any, code: Any) -> bool:
    """Whether a callable is another, or has other code; torch.compile wraps some for itself."""
    if now is value and getattr(now, "__code__", None) is code:
        return False
    return not _DYNAMO.search(getattr(getattr(now, "__code__", None), "co_filename", ""))


def changed_flags(before: Snapshot) -> list[str]:
    """Global settings that are others now, with both values."""
    now = global_flags()
    return [
        f"the global setting '{name}' was changed from {old} to {now[name]}"
        for name, old in before.flags.items()
        if now[name] != old
    ]


def foreign_threads(before: Snapshot) -> list[str]:
    """Python threads that the user's code left running; torch's own helpers are not counted."""
    return [
        f"a thread is still running: {thread.name}"
        for thread in threading.enumerate()
        if thread.ident not in before.threads and not _is_torch_thread(thread)
    ]


def _is_torch_thread(thread: threading.Thread) -> bool:
    """Whether the thread runs torch's code, or waits for work in a pool, as torch.compile's do."""
    module = getattr(getattr(thread, "_target", None), "__module__", None) or ""
    if module != "concurrent.futures.thread":
        return module.startswith("torch.")
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is not None and frame.f_code.co_name == "_worker"


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
