"""Native products of emitted CUDA: the hole, which takes runs of columns, and the launch.

The product is `skeletons/native_sm90*.cuh`. What it shares with the split product (names inside a
hole, the merging of folds) is in `cuda_contract`.
"""

from collections.abc import Sequence
from dataclasses import replace

from fusewright.ir.body import Dot, walk
from fusewright.ir.dtypes import BFLOAT16, DType
from fusewright.ir.kernel import Kernel
from fusewright.ir.native import NativePlan, Operand, native_plan
from fusewright.ir.onepass import Partial

from .common import Buffers, buffer_order, function_name, header, signature
from .cstyle import Env
from .ctext import Text, Writer, c_type
from .cuda_access import VectorAxis, loaded, plan_fetches, write_fetches, write_lanes
from .cuda_contract import (
    ACCUMULATOR,
    ONE,
    ContractionText,
    element_words,
    fold_functions,
    hole_env,
    kernel_partials,
    members_of,
    without_dot,
)

ROOT = "native_sm90_launch.cuh"
TYPES = {"bf16": "RoundedBfloat16", "tf32": "Tf32"}
# CTAs that share the tile of B.
CLUSTER = 2


def native_contraction(kernel: Kernel, buffers: Buffers) -> ContractionText:
    """The text of a contraction kernel of a native scheme."""
    env, plan = hole_env(kernel), native_plan(kernel)
    members, partials = members_of(kernel), kernel_partials(kernel)
    name = function_name(kernel)
    out = Writer()
    out.extend(header(kernel, buffers))
    with out.block(f"struct {name}_hole"):
        _constants(kernel, plan, partials, out)
        for b in members:
            const = "" if b in kernel.writes else "const "
            out.line(f"{const}{c_type(buffers[b].dtype, 'cuda')}* {env.pointers[b]};")
        _apply(kernel, plan, partials, env, out)
        fold_functions(kernel, partials, env, out)
    out.lines[-1] = "};"
    return ContractionText(out.text, _host(kernel, plan, members, buffers, env), name, ROOT)


def _result_type(kernel: Kernel) -> DType:
    return next(e.dtype for p in kernel.phases for e in walk(*p.bodies) if isinstance(e, Dot))


def _constants(kernel: Kernel, plan: NativePlan, partials: Sequence[Partial], out: Writer) -> None:
    over_n = "n" in {v.name for v in kernel.phases[0].cols} or not partials
    out.line(f"using Value = {c_type(_result_type(kernel), 'cuda')};")
    out.line(f"static constexpr int kRun = {plan.run};")
    out.line(f"static constexpr int kPartialWords = {sum(p.words for p in partials)};")
    out.line(f"static constexpr bool kFoldsOverN = {str(over_n).lower()};")


def _apply(
    kernel: Kernel, plan: NativePlan, partials: Sequence[Partial], env: Env, out: Writer
) -> None:
    """`apply`: what happens to a run of columns of one row of the product."""
    first = kernel.phases[0]
    columns = [v for v in (*kernel.rows, *first.cols) if v.name == "n"]
    axis = VectorAxis(columns[0] if columns else None, plan.run)
    stores = [replace(s, body=without_dot(s.body)) for s in first.stores]
    bodies = [without_dot(e) for p in partials for e in (p.value, p.weight or ONE)]
    words = sum(p.words for p in partials)
    over_m = words and "m" in {v.name for v in first.cols}
    lane = "v" if plan.run > 1 else "0"
    env = env.with_refs({ACCUMULATOR: Text(f"acc[{lane}]")})

    def fold(values: Sequence[Text], lane_env: Env) -> None:
        if not partials:
            return
        pairs = zip(partials, values[::2], values[1::2], strict=True)
        elements = [w for p, v, weight in pairs for w in element_words(p, v, weight, lane_env)]
        out.line(f"const float q[{words}] = {{{', '.join(elements)}}};")
        target = "p" if not over_m or plan.run == 1 else f"p + v * {words}"
        out.line(f"partial_merge({target}, q);")

    out.line("")
    values = f"const Value (&acc)[{plan.run}], float* p"
    with out.block(f"__device__ void apply(int batch, int m, int n, {values}) const"):
        fetches = plan_fetches([*bodies, *(s.body for s in stores)], axis, env)
        write_fetches(fetches, axis, "", env, out, declare=True)
        write_lanes(bodies, fold, stores, axis, env.with_loaded(loaded(fetches, "")), out)


# ------------------------------------------------------------------------------------------- host


def _host(
    kernel: Kernel, plan: NativePlan, members: Sequence[str], buffers: Buffers, env: Env
) -> str:
    """The function that enqueues the product with its hole."""
    name, space = function_name(kernel), env.pointers[kernel.workspace]
    params = []
    for b in buffer_order(kernel):
        const = "" if b in kernel.writes or b == kernel.workspace else "const "
        params.append(f"{const}{c_type(buffers[b].dtype, 'cuda')}* {env.pointers[b]}")
    operand = plan.a.load.dtype
    native = "Bfloat16" if operand == BFLOAT16 else "Float16"
    source = "float" if kernel.scheme in TYPES else "uint16_t"
    tile = f"native90::{TYPES.get(kernel.scheme, native)}, {plan.columns}, {CLUSTER}"
    layouts = ", ".join(f"native90::Layout::{x.layout}" for x in (plan.a, plan.b))
    out = Writer()
    out.extend(signature(f"static cudaError_t {name}", [*params, "cudaStream_t stream"], " {"))
    out.depth = 1
    out.line(f"using Tile = native90::Tile<{tile}>;")
    out.line(f"const {name}_hole hole = {{{', '.join(env.pointers[b] for b in members)}}};")
    out.line("const native90::Problem problem = {")
    for side, x in (("rows", plan.a), ("columns", plan.b)):
        out.line(f"    {_matrix(x, env)},  // {side} of the result: {x.rows}")
    out.line(f"    {plan.m}, {plan.n}, {plan.k}, {plan.batch}}};")
    out.line(f"return native90::run<Tile, {source}, {layouts}>(")
    out.line(f"    problem, hole, {space}, stream);")
    out.depth = 0
    out.line("}")
    return out.text


def _matrix(x: Operand, env: Env) -> str:
    """`{data, row_stride, k_stride, batch_stride}`."""
    pointer = env.pointers[x.load.buffer]
    data = f"{pointer} + {x.offset}" if x.offset else pointer
    return f"{{{', '.join([data, *map(str, x.strides)])}}}"
