"""Contractions of emitted CUDA: the hole around the Hopper matrix product, and its launch.

The product itself is `skeletons/gemm_sm90*.cuh`, embedded whole. A kernel of anchor "contraction"
becomes a struct with the body of its epilogue (`apply`), of its fold over rows or columns, and of
what follows the fold (`finish`), and a host function that hands operands and hole to the skeleton.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fusewright.errors import IRError
from fusewright.ir import index as ix
from fusewright.ir.body import Dot, Expr, Load, Ref, rebuild, walk
from fusewright.ir.index import Index, Var
from fusewright.ir.kernel import Fold, Kernel, Store

from .common import (
    Buffers,
    buffer_order,
    fold_identity,
    function_name,
    header,
    kernel_env,
    signature,
)
from .cstyle import Env, evaluate
from .ctext import Text, Writer, c_type

SKELETONS = Path(__file__).parent / "skeletons"
ROOT = "gemm_sm90_launch.cuh"
ACCUMULATOR = "acc"
_LOCAL_INCLUDE = re.compile(r'^#include "(.*)"\n', re.M)
_ONCE = "#pragma once\n"
_SYSTEM_INCLUDE = re.compile(r"^#include <.*>\n", re.M)
_COMBINE = {
    "sum": "{0} + {1}",
    "prod": "{0} * {1}",
    "max": "fw_maximum({0}, {1})",
    "min": "fw_minimum({0}, {1})",
}


def skeleton_text() -> str:
    """The matrix product's skeleton as one text: its files in the order of inclusion."""
    files: dict[str, str] = {}
    _include(ROOT, files)
    text = "\n".join(files.values())
    includes = dict.fromkeys(_SYSTEM_INCLUDE.findall(text))
    return "".join(includes) + "\n" + _SYSTEM_INCLUDE.sub("", text).strip() + "\n"


def _include(name: str, files: dict[str, str]) -> None:
    """Adds a file behind the files it includes, each once."""
    text = (SKELETONS / name).read_text(encoding="utf-8")
    for inner in _LOCAL_INCLUDE.findall(text):
        if inner not in files:
            _include(inner, files)
    files[name] = _LOCAL_INCLUDE.sub("", text).replace(_ONCE, "")


@dataclass(frozen=True, slots=True)
class ContractionText:
    """The hole (device code) and the host function of a contraction, and their name."""

    device: str
    host: str
    name: str

    def launch(self, arguments: Sequence[str]) -> list[str]:
        """The host statements that enqueue it on `stream` with the given pointers."""
        call = f"{self.name}({', '.join(arguments)}, stream)"
        return [f"if ((error = {call}) != cudaSuccess) return (int)error;"]


@dataclass(frozen=True, slots=True)
class _Matrices:
    """A contraction's operands: offsets as expressions of their axes, and the axes by role."""

    dot: Dot
    batch: Index
    m: Index
    n: Index

    @property
    def swapped(self) -> bool:
        """The right operand is streamed: the larger one is."""
        return self.n.hi >= self.m.hi


def _matrices(kernel: Kernel) -> _Matrices:
    """Finds the product and tells its axes apart: m is in x alone, n in y alone."""
    dots = [e for p in kernel.phases for e in walk(*p.bodies) if isinstance(e, Dot)]
    distinct = list(dict.fromkeys(dots))
    if len(distinct) != 1:
        raise IRError(f"{kernel.name}: a contraction has one product, not {len(distinct)}")
    axes = (*kernel.rows, *kernel.phases[0].cols)
    named = {v.name: v for v in axes}
    one = ix.const(0)
    return _Matrices(distinct[0], named.get("b", one), named.get("m", one), named.get("n", one))


def contraction(kernel: Kernel, buffers: Buffers) -> ContractionText:
    """The text of a contraction kernel."""
    env, parts = kernel_env(kernel, "cuda"), _matrices(kernel)
    known: dict[Var, str] = {}
    for axis, name in ((parts.batch, "batch"), (parts.m, "m"), (parts.n, "n")):
        if isinstance(axis, Var):
            known[axis] = name
    env = env.with_variables(known)  # type: ignore[arg-type]
    name = function_name(kernel)
    members = _members(kernel, parts)
    out = Writer()
    out.extend(header(kernel, buffers))
    with out.block(f"struct {name}_hole"):
        _constants(kernel, parts, out)
        for b in members:
            const = "" if b in kernel.writes else "const "
            out.line(f"{const}{c_type(buffers[b].dtype, 'cuda')}* {env.pointers[b]};")
        _apply(kernel, parts, env, out)
        _fold_functions(kernel, env, out)
    out.lines[-1] = "};"
    host = _host(kernel, parts, members, buffers, env)
    return ContractionText(out.text, host, name)


def _members(kernel: Kernel, parts: _Matrices) -> list[str]:
    """Buffers the hole touches: all but the operands and the workspace."""
    used: dict[str, None] = {}
    for p in kernel.phases:
        for body in p.bodies:
            inner = _without_dot(body)
            used.update((e.buffer, None) for e in walk(inner) if isinstance(e, Load))
        used.update((s.buffer, None) for s in p.stores)
    return list(used)


def _without_dot(e: Expr) -> Expr:
    return rebuild(e, lambda x: Ref(x.dtype, ACCUMULATOR) if isinstance(x, Dot) else None, {})


def _fold(kernel: Kernel) -> Fold | None:
    folds = kernel.phases[0].folds
    return folds[0] if folds else None


def _constants(kernel: Kernel, parts: _Matrices, out: Writer) -> None:
    fold = _fold(kernel)
    over_n = parts.n in kernel.phases[0].cols
    out.line(f"static constexpr bool kSwapped = {str(parts.swapped).lower()};")
    out.line(f"static constexpr int kPartialWords = {0 if fold is None else 1};")
    out.line(f"static constexpr bool kFoldsOverN = {str(over_n or fold is None).lower()};")


def _apply(kernel: Kernel, parts: _Matrices, env: Env, out: Writer) -> None:
    """`apply`: what happens to one element of the product."""
    first, fold = kernel.phases[0], _fold(kernel)
    out.line("")
    head = "__device__ float apply(int batch, int m, int n, float acc) const"
    with out.block(head):
        env = env.with_refs({ACCUMULATOR: Text("acc")})
        bodies = [_without_dot(s.body) for s in first.stores]
        bodies += [] if fold is None else [_without_dot(fold.body)]
        values = evaluate(bodies, env, out)
        _write(first.stores, values, env, out)
        out.line(f"return {values[-1].code if fold else 'acc'};")


def _write(stores: Sequence[Store], values: Sequence[Text], env: Env, out: Writer) -> None:
    for s, value in zip(stores, values, strict=False):
        out.line(f"{env.pointers[s.buffer]}[{env.index.text(s.offset).code}] = {value.code};")


def _fold_functions(kernel: Kernel, env: Env, out: Writer) -> None:
    """The fold of the epilogue's values, and what follows it per row (or column)."""
    fold = _fold(kernel)
    start = "0.0f" if fold is None else fold_identity(fold, "long long")
    combine = _COMBINE["sum" if fold is None else fold.kind]
    out.line(f"__device__ static void partial_identity(float* p) {{ p[0] = {start}; }}")
    head = "__device__ static void"
    add, merge = combine.format("p[0]", "x"), combine.format("p[0]", "q[0]")
    out.line(f"{head} partial_add(float* p, float x) {{ p[0] = {add}; }}")
    out.line(f"{head} partial_merge(float* p, const float* q) {{ p[0] = {merge}; }}")
    if fold is None:
        return
    kept = "m" if "n" in {v.name for v in kernel.phases[0].cols} else "n"
    stores = [s for p in kernel.phases[1:] for s in p.stores]
    with out.block(f"__device__ void finish(int batch, int {kept}, const float* p) const"):
        env = env.with_refs({fold.name: Text("p[0]")})
        values = evaluate([s.body for s in stores], env, out)
        _write(stores, values, env, out)


# ------------------------------------------------------------------------------------------- host


def _matrix(load: Load, row: Index, k: Index, batch: Index, pointer: str) -> str:
    """`{data, row_stride, k_stride, batch_stride}` of one operand."""
    start = load.offset
    for v in (row, k, batch):
        if isinstance(v, Var):
            start = ix.substitute(start, {v: ix.const(0)})
    offset = ix.constant_value(start) or 0
    data = f"{pointer} + {offset}" if offset else pointer
    strides = [
        ix.coefficient(load.offset, v) or 0 if isinstance(v, Var) else 0 for v in (row, k, batch)
    ]
    # An axis of extent 1 has no stride of its own; the layout must still be one of the two.
    if 1 not in strides[:2]:
        strides[1 if not isinstance(k, Var) or strides[1] == 0 else 0] = 1
    return f"{{{data}, {strides[0]}, {strides[1]}, {strides[2]}}}"


def _host(
    kernel: Kernel, parts: _Matrices, members: Sequence[str], buffers: Buffers, env: Env
) -> str:
    """The function that enqueues the product with its hole."""
    name, dot, k = function_name(kernel), parts.dot, parts.dot.k
    x = _matrix(dot.x, parts.m, k, parts.batch, env.pointers[dot.x.buffer])
    y = _matrix(dot.y, parts.n, k, parts.batch, env.pointers[dot.y.buffer])
    m, n, batch = parts.m.hi + 1, parts.n.hi + 1, parts.batch.hi + 1
    streamed, planes, rows, columns = (y, x, n, m) if parts.swapped else (x, y, m, n)
    k_major = streamed.split(", ")[2] == "1"
    params = []
    for b in buffer_order(kernel):
        const = "" if b in kernel.writes or b == kernel.workspace else "const "
        params.append(f"{const}{c_type(buffers[b].dtype, 'cuda')}* {env.pointers[b]}")
    out = Writer()
    out.extend(signature(f"static cudaError_t {name}", [*params, "cudaStream_t stream"], " {"))
    out.depth = 1
    out.line(f"const {name}_hole hole = {{{', '.join(env.pointers[b] for b in members)}}};")
    out.line("const gemm90::Problem problem = {")
    out.line(f"    {streamed},  // streamed: {rows} rows, split in registers")
    out.line(f"    {planes},  // planes: {columns} rows, split once per call")
    out.line(f"    {rows}, {columns}, {k.extent}, {batch}}};")
    space = env.pointers[kernel.workspace]
    out.line(
        f"return gemm90::run_major<{str(k_major).lower()}>(problem, hole, {space}, false, stream);"
    )
    out.depth = 0
    out.line("}")
    return out.text
