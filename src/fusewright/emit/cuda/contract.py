"""Contractions of emitted CUDA: the hole around the Hopper matrix product, and its launch.

The product itself is `skeletons/gemm_sm90*.cuh`, embedded whole. A kernel of anchor "contraction"
becomes a struct with the body of its epilogue and the values it folds over rows or columns
(`apply`), how parts of the folds merge (`partial_merge`), and what follows (`finish`), and a host
function that hands operands and hole to the skeleton.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fusewright.emit.common import (
    Buffers,
    buffer_order,
    fold_identity,
    function_name,
    header,
    kernel_env,
    signature,
)
from fusewright.emit.cstyle import Env, evaluate
from fusewright.emit.ctext import Text, Writer, c_type
from fusewright.emit.helpers import SKELETONS
from fusewright.errors import IRError
from fusewright.ir import index as ix
from fusewright.ir.body import Dot, Expr, Load, loads, walk
from fusewright.ir.dtypes import FLOAT32, DType
from fusewright.ir.index import Index, Var
from fusewright.ir.kernel import Kernel, Store
from fusewright.ir.onepass import Partial, finished, partials_of
from fusewright.ir.operand import base_load

from .runs import ACCUMULATOR, ONE, apply_runs, element_words, without_dot

ROOT, SHORT_ROOT = "gemm_sm90_launch.cuh", "gemm_sm90_short_launch.cuh"
_LOCAL_INCLUDE = re.compile(r'^#include "(.*)"\n', re.M)
_ONCE = "#pragma once\n"
_SYSTEM_INCLUDE = re.compile(r"^#include <.*>\n", re.M)
_HOLE_NAMES = (ACCUMULATOR, "p", "q", "Value", "Tile", "hole", "problem", "index", "row", "k", "x")
# skeletons/gemm_sm90_config.cuh: streamed rows and columns of a tile, depth of a chunk;
# gemm_sm90_short.cuh: the depth that has a kernel of its own, how many words its hole takes.
STREAM_ROWS, PLANE_ROWS, CHUNK = 256, 128, 64
SHORT_DEPTH, MOST_RUN = 2 * CHUNK, 4
_COMBINE = {
    "sum": "p[{0}] += q[{0}];",
    "prod": "p[{0}] *= q[{0}];",
    "max": "p[{0}] = fw_maximum(p[{0}], q[{0}]);",
    "min": "p[{0}] = fw_minimum(p[{0}], q[{0}]);",
}


def skeleton_text(roots: Sequence[str]) -> str:
    """The matrix products' skeletons as one text: their files in the order of inclusion."""
    files: dict[str, str] = {}
    for root in dict.fromkeys(roots):
        if root not in files:
            _include(root, files)
    text = "\n".join(files.values())
    includes = dict.fromkeys(_SYSTEM_INCLUDE.findall(text))
    return "".join(includes) + "\n" + _SYSTEM_INCLUDE.sub("", text).strip() + "\n"


def _include(name: str, files: dict[str, str]) -> None:
    """Adds a file behind the files it includes, each once."""
    text = (SKELETONS / name).read_text(encoding="utf-8")
    for inner in _LOCAL_INCLUDE.findall(text):
        if inner not in files:
            _include(inner, files)
    text = _LOCAL_INCLUDE.sub("", text).replace(_ONCE, "")
    files[name] = f"// {f' {name}':=>97}\n\n{text}"


@dataclass(frozen=True, slots=True)
class ContractionText:
    """The hole (device code) and the host function of a contraction, their name, its skeleton."""

    device: str
    host: str
    name: str
    skeleton: str

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

    @property
    def streamed(self) -> "_Operand":
        return self._sides[1 if self.swapped else 0]

    @property
    def planes(self) -> "_Operand":
        return self._sides[0 if self.swapped else 1]

    @property
    def _sides(self) -> tuple["_Operand", "_Operand"]:
        return _Operand(self.dot.x, self.m, self.dot.k), _Operand(self.dot.y, self.n, self.dot.k)


@dataclass(frozen=True, slots=True)
class _Operand:
    """One operand: its element (row, k), which `base` stands for in memory."""

    value: Expr
    row: Index
    k: Var

    @property
    def base(self) -> Load:
        return base_load(self.value, self.row, self.k)

    @property
    def is_direct(self) -> bool:
        return isinstance(self.value, Load)

    @property
    def rows(self) -> int:
        return self.row.hi + 1


def _matrices(kernel: Kernel) -> _Matrices:
    """Finds the product and tells its axes apart: m is in x alone, n in y alone."""
    dots = [e for e in walk(*kernel.bodies) if isinstance(e, Dot)]
    distinct = list(dict.fromkeys(dots))
    if len(distinct) != 1:
        raise IRError(f"{kernel.name}: a contraction has one product, not {len(distinct)}")
    axes = (*kernel.rows, *kernel.phases[0].cols)
    named = {v.name: v for v in axes}
    one = ix.const(0)
    return _Matrices(distinct[0], named.get("b", one), named.get("m", one), named.get("n", one))


def hole_env(kernel: Kernel) -> Env:
    """Names inside a hole: its functions' parameters are called as the skeletons call them."""
    names = {"b": "batch", "m": "m", "n": "n"}
    env = kernel_env(kernel, "cuda", (*names.values(), *_HOLE_NAMES))
    axes = (*kernel.rows, *kernel.phases[0].cols)
    # Members of a struct cannot be restricted: without this each row waits for the stores before.
    fixed = frozenset(kernel.reads).difference(kernel.writes)
    return replace(env.with_variables({v: names[v.name] for v in axes}), fixed=fixed)


def contraction(kernel: Kernel, buffers: Buffers) -> ContractionText:
    """The text of a contraction kernel."""
    env, parts = hole_env(kernel), _matrices(kernel)
    name = function_name(kernel)
    members, partials = _members(kernel, parts), kernel_partials(kernel)
    out = Writer()
    out.extend(header(kernel, buffers))
    with out.block(f"struct {name}_hole"):
        _constants(kernel, parts, partials, out)
        for b in members:
            const = "" if b in kernel.writes else "const "
            out.line(f"{const}{c_type(buffers[b].dtype, 'cuda')}* {env.pointers[b]};")
        _operands(parts, env, out)
        _apply(kernel, partials, env, out)
        if (run := _run(kernel, parts)) > 1:
            apply_runs(kernel, run, partials, env, out)
        fold_functions(kernel, partials, env, out)
    out.lines[-1] = "};"
    host = _host(kernel, parts, members, buffers, env)
    root = SHORT_ROOT if _is_short(kernel, parts) else ROOT
    return ContractionText(out.text, host, name, root)


def members_of(kernel: Kernel) -> list[str]:
    """Buffers the hole touches: all but the operands and the workspace."""
    used: dict[str, None] = {}
    for p in kernel.phases:
        for body in p.bodies:
            inner = without_dot(body)
            used.update((e.buffer, None) for e in walk(inner) if isinstance(e, Load))
        used.update((s.buffer, None) for s in p.stores)
    return list(used)


def _members(kernel: Kernel, parts: _Matrices) -> list[str]:
    """The same, and what computed operands read: of a streamed one all but its base."""
    streamed, planes = parts.streamed, parts.planes
    beside = [x for x in loads(streamed.value) if x != streamed.base]
    read = [*beside, *(() if planes.is_direct else loads(planes.value))]
    return list(dict.fromkeys((*members_of(kernel), *(x.buffer for x in read))))


def _operands(parts: _Matrices, env: Env, out: Writer) -> None:
    """What the skeleton takes for an element of an operand that is computed on the way."""
    for name, x in (("stream", parts.streamed), ("planes", parts.planes)):
        if x.is_direct:
            continue
        loaded: dict[Expr, Text] = {x.base: Text("x")} if name == "stream" else {}
        axes: dict[Index, str] = {x.row: "row", x.k: "k"}
        inner = env.with_variables(axes).with_loaded(loaded)
        given = ", float x" if name == "stream" else ""
        out.line("")
        with out.block(f"__device__ float {name}(int batch, int row, int k{given}) const"):
            out.line(f"return {evaluate([x.value], inner, out)[0].code};")


def kernel_partials(kernel: Kernel) -> tuple[Partial, ...]:
    found = partials_of(kernel.phases)
    if found is None:
        raise IRError(f"{kernel.name}: its folds need more than one pass over the product")
    return found


def _constants(kernel: Kernel, parts: _Matrices, partials: Sequence[Partial], out: Writer) -> None:
    over_n = parts.n in kernel.phases[0].cols
    out.line(f"static constexpr bool kSwapped = {str(parts.swapped).lower()};")
    out.line(f"static constexpr int kPartialWords = {sum(p.words for p in partials)};")
    out.line(f"static constexpr bool kFoldsOverN = {str(over_n or not partials).lower()};")
    out.line(f"static constexpr int kSlices = {kernel.tile.lanes};")
    stream, planes = parts.streamed, parts.planes
    out.line(f"static constexpr bool kMapsStream = {str(not stream.is_direct).lower()};")
    out.line(f"static constexpr bool kMapsPlanes = {str(not planes.is_direct).lower()};")
    depth, rows_fit = parts.dot.k.extent, stream.rows % STREAM_ROWS == 0
    whole = rows_fit and depth % CHUNK == 0
    out.line(f"static constexpr bool kWholeStream = {str(whole).lower()};")
    out.line(f"static constexpr int kDepth = {depth};")
    division = _division(planes, parts.batch)
    out.line(f"static constexpr gemm90::Division kDivision = gemm90::Division::{division};")
    whole = rows_fit and planes.rows % PLANE_ROWS == 0
    out.line(f"static constexpr bool kWhole = {str(whole).lower()};")
    if _is_short(kernel, parts):
        out.line(f"static constexpr int kRun = {_run(kernel, parts)};")
        out.line("using Value = float;")


def _is_short(kernel: Kernel, parts: _Matrices) -> bool:
    """Whether the product has the kernel for a small depth: `FastProduct` of its skeleton."""
    whole = kernel.tile.lanes == 1 and not kernel_partials(kernel)
    return whole and parts.dot.k.extent <= SHORT_DEPTH


def _run(kernel: Kernel, parts: _Matrices) -> int:
    """Neighbouring elements of a row that the hole also takes at once."""
    columns = parts.n.hi + 1
    return min(MOST_RUN, columns & -columns) if _is_short(kernel, parts) else 1


def _division(planes: _Operand, batch: Index) -> str:
    """How the split of the planes divides them: `division_of` of gemm_sm90_launch.cuh."""
    if ix.coefficient(planes.base.offset, planes.k) != 1:
        return "kStrips"
    batched = isinstance(batch, Var) and ix.coefficient(planes.base.offset, batch)
    rows = planes.rows * (batch.hi + 1 if batched else 1)
    return "kWarpRows" if planes.k.extent <= 2048 and rows >= 1024 else "kBlockRows"


def _apply(kernel: Kernel, partials: Sequence[Partial], env: Env, out: Writer) -> None:
    """What happens to one element of the product: `apply`, in terms of `element` with a fold."""
    first = kernel.phases[0]
    head = "__device__ void {}(int batch, int m, int n, float acc, float* p) const"
    out.line("")
    if partials:
        with out.block(head.format("apply")):
            out.line("float q[kPartialWords];")
            out.line("element(batch, m, n, acc, q);")
            out.line("partial_merge(p, q);")
    with out.block(head.format("element" if partials else "apply")):
        env = env.with_refs({ACCUMULATOR: Text("acc")})
        bodies = [without_dot(s.body) for s in first.stores]
        bodies += [without_dot(e) for p in partials for e in (p.value, p.weight or ONE)]
        values = evaluate(bodies, env, out)
        _write(first.stores, values, env, out)
        folded = values[len(first.stores) :]
        pairs = zip(partials, folded[::2], folded[1::2], strict=True)
        words = [w for p, value, weight in pairs for w in element_words(p, value, weight, env)]
        out.extend([f"p[{k}] = {w};" for k, w in enumerate(words)])


def _identity(p: Partial) -> list[str]:
    """The partial of no element."""
    if p.form == "best":
        return [fold_identity(p.fold), "__int_as_float(2147483647)"]
    if p.form == "exponentials":
        return ["-FW_INF", "0.0f"]
    return ["0.0f"] * p.words if p.form == "squares" else [fold_identity(p.fold)]


def _merge(p: Partial, at: int) -> str:
    """The statement that merges words `at` and following of q into those of p."""
    if p.form == "plain":
        return _COMBINE[p.fold.kind].format(at)
    name = p.fold.kind if p.form == "best" else p.form
    return f"fw_merge_{name}(p + {at}, q + {at});"


def _write(stores: Sequence[Store], values: Sequence[Text], env: Env, out: Writer) -> None:
    for s, value in zip(stores, values, strict=False):
        out.line(f"{env.pointers[s.buffer]}[{env.index.text(s.offset).code}] = {value.code};")


def fold_functions(kernel: Kernel, partials: Sequence[Partial], env: Env, out: Writer) -> None:
    """How parts of the folds merge, and what follows them per row (or column), if there are any."""
    if not partials:
        return
    words = [w for p in partials for w in _identity(p)]
    starts = [0]
    for p in partials:
        starts.append(starts[-1] + p.words)
    with out.block("__device__ static void partial_identity(float* p)"):
        out.extend([f"p[{k}] = {w};" for k, w in enumerate(words)])
    with out.block("__device__ static void partial_merge(float* p, const float* q)"):
        out.extend([_merge(p, at) for p, at in zip(partials, starts, strict=False)])
    kept = "m" if "n" in {v.name for v in kernel.phases[0].cols} else "n"
    stores = [s for phase in kernel.phases if not phase.cols for s in phase.stores]
    with out.block(f"__device__ void finish(int batch, int {kept}, const float* p) const"):
        env = env.with_refs(
            {
                p.word(k).name: Text(_word(p, k, at))
                for p, at in zip(partials, starts, strict=False)
                for k in range(p.words)
            }
        )
        values = evaluate([finished(s.body, partials) for s in stores], env, out)
        _write(stores, values, env, out)


def _word(p: Partial, number: int, at: int) -> str:
    text = f"p[{at + number}]"
    return f"(long long)__float_as_int({text})" if p.form == "best" and number else text


# ------------------------------------------------------------------------------------------- host


def _matrix(load: Load, row: Index, k: Index, batch: Index, pointer: str, dtype: DType) -> str:
    """`{data, row_stride, k_stride, batch_stride}` of one operand; no data where it is computed of
    another type."""
    start = load.offset
    for v in (row, k, batch):
        if isinstance(v, Var):
            start = ix.substitute(start, {v: ix.const(0)})
    offset = ix.constant_value(start) or 0
    data = f"{pointer} + {offset}" if offset else pointer
    data = data if dtype == FLOAT32 else "nullptr"
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
    name, k = function_name(kernel), parts.dot.k
    streamed, planes = (
        _matrix(x.base, x.row, k, parts.batch, env.pointers[x.base.buffer], x.base.dtype)
        for x in (parts.streamed, parts.planes)
    )
    rows, columns, batch = parts.streamed.rows, parts.planes.rows, parts.batch.hi + 1
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
    major = str(k_major).lower()
    out.line(f"return gemm90::run_major<{major}>(problem, hole, {space}, false, stream);")
    out.depth = 0
    out.line("}")
    return out.text
