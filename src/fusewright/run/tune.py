"""Measures ways to compute the products of a program, and keeps what was measured.

The table is one JSON file per user: device and fusewright's version, key of the product, seconds by
name of the way. It is read and written only where the user asks for that. What there is to measure
is the schedule's business; here programs are built and timed on generated data.
"""

import ctypes
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from fusewright.errors import BuildError, OutputError
from fusewright.ir.kernel import Buffer, LibraryCall, Program, Strided
from fusewright.target.tuning import Choice, Tuning

from .build import compile_cuda, default_cache_dir
from .files import write_atomically
from .scalars import torch_dtype

ROUNDS, WARM_UPS = 15, 3
# Overwritten before each call, so that no operand is in the cache: 1 GB takes longer to write than
# a call to enqueue.
FLUSH_BYTES = 1 << 30
BUILDERS = 4


@dataclass(frozen=True, slots=True)
class Runnable:
    """A program with the text of its kernels: `steps` are entry points, with the buffers that they
    take, and calls."""

    program: Program
    text: str
    arch: str
    steps: tuple[tuple[str, tuple[str, ...]] | LibraryCall, ...]


Timer = Callable[[Mapping[str, Runnable]], Mapping[str, float]]
"""Seconds of each of several runnables that compute the same."""


# ------------------------------------------------------------------------------------- the table


def default_table() -> Path:
    """The user's table."""
    return default_cache_dir() / "tuning.json"


def present_device(kind: str) -> str | None:
    """The name of the device that programs of this kind would run on, if it is here."""
    there = kind == "cuda" and torch.cuda.is_available()
    return torch.cuda.get_device_name() if there else None


def read_table(path: Path, device: str, version: str) -> Tuning:
    """What the table has of a device, by this version. Raises OutputError for a file that is none.

    What another version measured does not count: its kernels were others.
    """
    entries = _read(path).get(_section(device, version), {})
    try:
        choices = {key: Choice({n: float(s) for n, s in e.items()}) for key, e in entries.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise OutputError(f"{path}: not a table of times ({error}); delete it") from error
    return Tuning(device, choices)


def add_to_table(path: Path, tuning: Tuning, version: str) -> None:
    """Writes the choices of a device into the table; what else it has stays. All or nothing."""
    table = _read(path)
    own = {key: dict(choice.seconds) for key, choice in tuning.choices.items()}
    section = _section(tuning.device, version)
    table[section] = {**table.get(section, {}), **own}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(json.dumps(table, indent=1, sort_keys=True) + "\n", path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


def _section(device: str, version: str) -> str:
    return f"{device}, fusewright {version}"


def _read(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: cannot be read as a table ({error}); delete it") from error
    if not isinstance(table, dict):
        raise OutputError(f"{path}: not a table; delete it")
    return table


# ----------------------------------------------------------------------------------- measurements


def measured(
    known: Tuning,
    wanted: Iterable[tuple[str, Mapping[str, Runnable]]],
    timer: Timer,
) -> Tuning:
    """`known` with the choices it lacks, one per key."""
    choices = dict(known.choices)
    for key, runnables in wanted:
        if key not in choices:
            choices[key] = Choice(timer(runnables))
    return Tuning(known.device, choices)


def time_on_gpu(runnables: Mapping[str, Runnable]) -> dict[str, float]:
    """Medians of interleaved calls with cold caches, on the current device and stream."""
    with ThreadPoolExecutor(BUILDERS) as pool:
        libraries = dict(zip(runnables, pool.map(_built, runnables.values()), strict=True))
    flush = torch.empty(FLUSH_BYTES // 4, device="cuda")
    memory = _memory(runnables.values())
    times: dict[str, list[float]] = {name: [] for name in runnables}
    for k in range(WARM_UPS + ROUNDS):
        for name, runnable in runnables.items():
            flush.zero_()
            start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            _call(runnable, libraries[name], memory)
            stop.record()
            torch.cuda.synchronize()
            if k >= WARM_UPS:
                times[name].append(start.elapsed_time(stop) * 1e-3)
    return {name: median(values) for name, values in times.items()}


def _built(runnable: Runnable) -> ctypes.CDLL | None:
    if not runnable.text:
        return None
    arch = runnable.arch
    if not arch.startswith("sm_"):  # code for any device: for the one here
        arch = "sm_{}{}".format(*torch.cuda.get_device_capability())
    binary = compile_cuda(runnable.text, arch, ptxas_report=False)
    return ctypes.CDLL(str(binary.path))


def _memory(runnables: Iterable[Runnable]) -> dict[str, torch.Tensor]:
    """Every buffer of the programs, which share those of one name and size: normal numbers, or 0
    where integers may be positions."""
    sizes: dict[str, Buffer] = {}
    for x in (x for r in runnables for x in r.program.buffers):
        if x.name not in sizes or x.nbytes > sizes[x.name].nbytes:
            sizes[x.name] = x
    generator = torch.Generator("cuda").manual_seed(0)
    return {name: _generated(x, generator) for name, x in sizes.items()}


def _generated(x: Buffer, generator: torch.Generator) -> torch.Tensor:
    span = 1 + sum((n - 1) * s for n, s in zip(x.shape, x.strides, strict=True))
    dtype = torch_dtype(x.dtype)
    if not dtype.is_floating_point:
        return torch.zeros(span, dtype=dtype, device="cuda")
    return torch.randn(span, device="cuda", generator=generator).to(dtype)


def _call(runnable: Runnable, library: ctypes.CDLL | None, memory: dict[str, torch.Tensor]) -> None:
    stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
    for step in runnable.steps:
        if isinstance(step, LibraryCall):
            _library_call(step, memory)
            continue
        name, buffers = step
        pointers = [ctypes.c_void_p(memory[x].data_ptr()) for x in buffers]
        failed = getattr(library, name)(*pointers, stream)
        if failed:
            raise BuildError(f"{name}: CUDA error {failed} while a candidate was timed")


def _library_call(call: LibraryCall, memory: dict[str, torch.Tensor]) -> None:
    """A product by torch; kernels behind it read what is in its buffer, whatever that is."""
    function = getattr(torch, call.function.removeprefix("torch."))
    function(*_tensors(call.args, memory), **dict(zip(
        (k for k, _ in call.kwargs), _tensors((v for _, v in call.kwargs), memory), strict=True
    )))  # fmt: skip


def _tensors(args: Iterable[Any], memory: Mapping[str, torch.Tensor]) -> Iterator[Any]:
    for x in args:
        if isinstance(x, Strided):
            yield torch.as_strided(memory[x.buffer], x.shape, x.strides, x.offset)
        else:
            yield x
