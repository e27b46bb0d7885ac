"""Runs the CUDA text of emitted files on the CPU, compiled by g++ through cuda_on_cpu.hpp.

`Library` is a compiled text: its entry points take CPU tensors. `Run` runs a whole emitted
`ModelNew` that way. What counts as a finding is in runtime.cpp.
"""

import copy
import ctypes
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from fusewright.pipeline import Compilation
from fusewright.problem import split_init_args
from fusewright.run.build import compile_cpp
from fusewright.run.load import import_text

HERE = Path(__file__).parent
HEADER = HERE / "cuda_on_cpu.hpp"
# Without scalar replacement a vector access stays one access. The sanitizers' callbacks are ours,
# so their libraries are not linked. Locals start as a pattern.
FLAGS = (
    *("-O1", "-w", "-fno-tree-sra", "-ftrivial-auto-var-init=pattern", "-fno-gnu-unique"),
    *("-ffp-contract=off", "-U_FORTIFY_SOURCE", "-fsanitize=thread"),
    "-fsanitize=alignment,bounds,integer-divide-by-zero",
    *("-nodefaultlibs", "-lstdc++", "-lm", "-lc", "-lgcc"),
)


class SimtError(Exception):
    """What the execution of a kernel found: kernel, block, thread and what happened."""


_ASM = re.compile(r"\basm\s*(?:volatile\s*)?\((.*?)\);", re.DOTALL)
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
_SHARED = re.compile(
    r"(extern\s+)?__shared__\s+(?:__align__\((\d+)\)\s*)?([^;]+?)\s+(\w+)((?:\[[^\]]*\])*);"
)
_LAUNCH = re.compile(r"\b([\w:]+(?:<[\w, ]+>)?)<<<(.*?)>>>\((.*?)\);", re.DOTALL)
_CLUSTER = re.compile(r"__cluster_dims__\((\d+)\) __launch_bounds__\(\d+\) (\w+)\(")
_ENTRY = re.compile(r'extern "C" int (forward_\d+)\((.*?)cudaStream_t stream\)', re.DOTALL)


def host_text(text: str) -> str:
    """Emitted CUDA text with what is no C++ rewritten; every line keeps its number.

    Raises SimtError for a construct that has no rewriting.
    """
    text = _ASM.sub(_ptx, text)
    text = _SHARED.sub(_shared, text)
    clusters = {name: size for size, name in _CLUSTER.findall(text)}

    def launch(m: re.Match[str]) -> str:
        call = f"[=]() SIMT_UNWATCHED {{ {m[1]}({m[3]}); }}"
        return f'simt::launch("{m[1]}", {call}, {clusters.get(m[1], "1")}, {m[2]});'

    text = _LAUNCH.sub(launch, text)
    if left := re.search(r"\basm\b|\b__shared__\b|<<<|wgmma", text):
        raise SimtError(f"no rewriting is known: {text[left.start() :].splitlines()[0]}")
    return text


def _ptx(m: re.Match[str]) -> str:
    """The call `ptx_...(operands)` for an asm statement, in as many lines."""
    head, *operands = re.split(r'"[=+]?\w+"\s*\(', m[1])
    template = re.sub(r"%\d+", "", "".join(_STRING.findall(head)))
    name = re.sub(r"[^A-Za-z0-9]+", "_", template).strip("_")
    arguments = ", ".join(" ".join(x.rpartition(")")[0].split()) for x in operands)
    return f"ptx_{name}({arguments});" + "\n" * m[0].count("\n")


def _shared(m: re.Match[str]) -> str:
    dynamic, alignment, kind, name, dims = m.groups()
    extra = f", {alignment}" if alignment else ""
    if dynamic:
        return f'{kind}* {name} = simt::dynamic_shared<{kind}>("{name}"{extra});'
    array = f'simt::shared<{kind}{dims}>(&{name}_tag, "{name}"{extra})'
    return f"static char {name}_tag; auto& {name} = {array};"



@cache
def _runtime() -> ctypes.CDLL:
    include = f'#include "{HEADER.name}"'
    source = (HERE / "runtime.cpp").read_text().replace(include, HEADER.read_text())
    path = compile_cpp(source, openmp=False, flags=("-O2", "-U_FORTIFY_SOURCE"))
    library = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    library.simt_finding.restype = ctypes.c_char_p
    return library


class Library:
    """Compiled CUDA text; `entries` has the names of its entry points' parameters."""

    def __init__(self, text: str) -> None:
        _runtime()
        source = f"{HEADER.read_text()}\n{host_text(text)}"
        self.text = text
        self.handle = ctypes.CDLL(str(compile_cpp(source, openmp=False, flags=FLAGS)))
        self.entries = {e[1]: re.findall(r"(\w+),", e[2]) for e in _ENTRY.finditer(text)}

    def call(self, entry: str, pointers: Sequence[int]) -> int:
        """The entry's status, threads in the order that the seed gives. Raises SimtError."""
        status = getattr(self.handle, entry)(*map(ctypes.c_void_p, pointers), None)
        if finding := _runtime().simt_finding():
            raise SimtError(finding.decode())
        return status


def start(seed: int) -> None:
    """Forgets all buffers; from here on the order of threads and blocks is that of the seed."""
    _runtime().simt_forget()
    _runtime().simt_seed(ctypes.c_uint64(seed))


def tell(name: str, tensor: Tensor, filled: bool) -> None:
    """Makes a tensor's memory, to the end of its storage, known to the judge."""
    begin, size, storage = tensor.data_ptr(), tensor.element_size(), tensor.untyped_storage()
    count = storage.nbytes() - (begin - storage.data_ptr())
    arguments = (ctypes.c_void_p(begin), ctypes.c_size_t(count), ctypes.c_size_t(size))
    _runtime().simt_buffer(name.encode(), *arguments, int(filled))


def _tensors(tree: Any) -> list[Tensor]:
    return [x for x in tree_leaves(tree) if isinstance(x, Tensor)]


class _Memory(TorchDispatchMode):
    """Keeps every tensor that is made, so that addresses stay unique, and fills new ones with NaN
    or a pattern. `fresh` has the addresses of those that nobody has used yet."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: dict[int, Tensor] = {}
        self.fresh: set[int] = set()

    def keep(self, tensor: Tensor) -> None:
        self.tensors.setdefault(tensor.data_ptr(), tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for x in _tensors((args, kwargs)):
            self.fresh.discard(x.untyped_storage().data_ptr())
        for x in _tensors(out):
            self.keep(x)
        if str(func).startswith("aten.empty"):
            ctypes.memset(out.data_ptr(), 0xFF, out.untyped_storage().nbytes())
            self.fresh.add(out.data_ptr())
        return out


def on_cpu(text: str) -> str:
    """The emitted file that admits tensors on the CPU as it would those on a GPU."""
    changed = text.replace('device.type != "cuda"', 'device.type != "cpu"')
    assert changed != text, "the emitted guards have changed"
    return changed


@dataclass(frozen=True)
class Run:
    """Calls models of an imported emitted file, given through `on_cpu`, on these kernels."""

    module: ModuleType
    library: Library

    def __call__(self, model: torch.nn.Module, inputs: Sequence[Any], seed: int) -> Any:
        """The result of one forward, with threads in the order that the seed gives.

        Raises SimtError for a finding, UserWarning when the reference ran instead of the kernels.
        """
        memory, changed = _Memory(), self.module._changed_tensor
        kernels = {e: self._entry(e, memory) for e in self.library.entries}
        patches = {
            "_library": lambda: SimpleNamespace(**kernels),
            "_capable": lambda device: True,
            "_changed_tensor": lambda tensors: [*map(memory.keep, tensors), changed(tensors)][-1],
        }
        start(seed)
        with (
            mock.patch.multiple(self.module, **patches, create=True),
            mock.patch("torch._C._cuda_getDevice", lambda: None, create=True),
            mock.patch("torch._C._cuda_getCurrentRawStream", lambda index: None, create=True),
            warnings.catch_warnings(),
            torch.no_grad(),
            memory,
        ):
            warnings.simplefilter("error", UserWarning)
            return model(*inputs)

    def _entry(self, name: str, memory: _Memory) -> Callable[..., int]:
        def call(*pointers: int) -> int:
            *buffers, _ = pointers  # the last one is the stream
            for p, parameter in zip(buffers, self.library.entries[name], strict=True):
                tell(parameter, memory.tensors[p], p not in memory.fresh)
            return self.library.call(name, buffers)

        return call


def run_of(c: Compilation) -> Run:
    """The emitted CUDA file of a compilation, its kernels compiled for the CPU."""
    module = import_text(on_cpu(c.module_text), c.title, c.given)
    return Run(module, Library(module.CUDA_SOURCE))


def compare(run: Run, seeds: Sequence[int]) -> None:
    """Results, inputs and state after a forward of the kernels and of the reference, by seed.

    Raises AssertionError where they differ, SimtError for a finding.
    """
    torch.manual_seed(3)
    given = getattr(run.module, "get_init_inputs", list)()
    args, kwargs = split_init_args(run.module.Model, given)
    new, inputs = run.module.ModelNew(*args, **kwargs), run.module.get_inputs()
    old = copy.deepcopy(new)
    old.__class__ = run.module.Model
    want = _effects(old, old, inputs)
    # Kernels may keep in float32 what eager rounds to a 16-bit type.
    half = {torch.float16, torch.bfloat16} & {x.dtype for x in _tensors(want)}
    for seed in seeds:
        model = copy.deepcopy(new)
        got = _effects(lambda *x, m=model, s=seed: run(m, x, s), model, inputs)
        for a, b in zip(got, want, strict=True):
            _assert_close(a, b, 2**-7 if half else 1e-5)


def _effects(forward: Callable[..., Any], model: torch.nn.Module, inputs: list[Any]) -> list[Any]:
    # Copies have the strides that a copy to a GPU has.
    inputs = tree_map_only(Tensor, torch.clone, inputs)
    torch.manual_seed(5)
    with torch.no_grad():
        out = forward(*inputs)
    return tree_leaves((vars(out) if is_dataclass(out) else out, inputs, model.state_dict()))


def _assert_close(a: Any, b: Any, tolerance: float) -> None:
    """Floats within `tolerance` of their own size or of the tensor's; the rest exactly."""
    size = 0.0
    if isinstance(b, Tensor) and b.is_floating_point():
        size = b[b.isfinite()].double().square().mean().sqrt().nan_to_num().item()
    rtol, atol = (tolerance, tolerance * size) if size else (0.0, 0.0)
    torch.testing.assert_close(a, b, rtol=rtol, atol=atol, equal_nan=True)
