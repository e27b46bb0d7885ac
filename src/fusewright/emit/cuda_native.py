"""Products of emitted CUDA whose hole takes runs of columns: the hole, and the launch.

The product is `skeletons/native_sm90*.cuh` or, by multiply-adds, `skeletons/gemm_fma.cuh`. What
they share with the split product (names inside a hole, the merging of folds) is in `cuda_contract`.
"""

from collections.abc import Sequence
from dataclasses import replace

from fusewright.ir.body import Dot, walk
from fusewright.ir.dtypes import BFLOAT16, DType
from fusewright.ir.fma import fma_plan, fma_run
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
FMA_ROOT = "gemm_fma.cuh"
TYPES = {"bf16": "RoundedBfloat16", "tf32": "Tf32"}
# CTAs that share the tile of B.
CLUSTER = 2


def native_contraction(kernel: Kernel, buffers: Buffers) -> ContractionText:
    """The text of a contraction kernel of a native scheme."""
    env, plan = hole_env(kernel), native_plan(kernel)
    device = _hole(kernel, plan.run, env, buffers)
    return ContractionText(
        device,
        _host(kernel, buffers, env, _native_call(kernel, plan, env)),
        function_name(kernel),
        ROOT,
    )


def fma_contraction(kernel: Kernel, buffers: Buffers) -> ContractionText:
    """The text of a contraction kernel of scheme fma."""
    env, plan = hole_env(kernel), fma_plan(kernel)
    device = _hole(kernel, fma_run(plan.n), env, buffers)
    return ContractionText(
        device,
        _host(kernel, buffers, env, _fma_call(kernel, plan, env)),
        function_name(kernel),
        FMA_ROOT,
    )


def _hole(kernel: Kernel, run: int, env: Env, buffers: Buffers) -> str:
    """The struct whose functions take `run` columns at once."""
    partials = kernel_partials(kernel)
    out = Writer()
    out.extend(header(kernel, buffers))
    with out.block(f"struct {function_name(kernel)}_hole"):
        _constants(kernel, run, partials, out)
        for b in members_of(kernel):
            const = "" if b in kernel.writes else "const "
            out.line(f"{const}{c_type(buffers[b].dtype, 'cuda')}* {env.pointers[b]};")
        _apply(kernel, run, partials, env, out)
        fold_functions(kernel, partials, env, out)
    out.lines[-1] = "};"
    return out.text


def _result_type(kernel: Kernel) -> DType:
    return next(e.dtype for p in kernel.phases for e in walk(*p.bodies) if isinstance(e, Dot))


def _constants(kernel: Kernel, run: int, partials: Sequence[Partial], out: Writer) -> None:
    over_n = "n" in {v.name for v in kernel.phases[0].cols} or not partials
    out.line(f"using Value = {c_type(_result_type(kernel), 'cuda')};")
    out.line(f"static constexpr int kRun = {run};")
    out.line(f"static constexpr int kPartialWords = {sum(p.words for p in partials)};")
    out.line(f"static constexpr bool kFoldsOverN = {str(over_n).lower()};")


def _apply(kernel: Kernel, run: int, partials: Sequence[Partial], env: Env, out: Writer) -> None:
    """`apply`: what happens to a run of columns of one row of the product."""
    first = kernel.phases[0]
    columns = [v for v in (*kernel.rows, *first.cols) if v.name == "n"]
    axis = VectorAxis(columns[0] if columns else None, run)
    stores = [replace(s, body=without_dot(s.body)) for s in first.stores]
    bodies = [without_dot(e) for p in partials for e in (p.value, p.weight or ONE)]
    words = sum(p.words for p in partials)
    over_m = words and "m" in {v.name for v in first.cols}
    lane = "v" if run > 1 else "0"
    env = env.with_refs({ACCUMULATOR: Text(f"acc[{lane}]")})

    def fold(values: Sequence[Text], lane_env: Env) -> None:
        if not partials:
            return
        pairs = zip(partials, values[::2], values[1::2], strict=True)
        elements = [w for p, v, weight in pairs for w in element_words(p, v, weight, lane_env)]
        out.line(f"const float q[{words}] = {{{', '.join(elements)}}};")
        target = "p" if not over_m or run == 1 else f"p + v * {words}"
        out.line(f"partial_merge({target}, q);")

    out.line("")
    values = f"const Value (&acc)[{run}], float* p"
    with out.block(f"__device__ void apply(int batch, int m, int n, {values}) const"):
        fetches = plan_fetches([*bodies, *(s.body for s in stores)], axis, env)
        write_fetches(fetches, axis, "", env, out, declare=True)
        write_lanes(bodies, fold, stores, axis, env.with_loaded(loaded(fetches, "")), out)


# ------------------------------------------------------------------------------------------- host


def _host(kernel: Kernel, buffers: Buffers, env: Env, call: Sequence[str]) -> str:
    """The function that enqueues the product with its hole: by the statements `call`."""
    name, members = function_name(kernel), members_of(kernel)
    params = []
    for b in buffer_order(kernel):
        const = "" if b in kernel.writes or b == kernel.workspace else "const "
        params.append(f"{const}{c_type(buffers[b].dtype, 'cuda')}* {env.pointers[b]}")
    out = Writer()
    out.extend(signature(f"static cudaError_t {name}", [*params, "cudaStream_t stream"], " {"))
    out.depth = 1
    out.line(f"const {name}_hole hole = {{{', '.join(env.pointers[b] for b in members)}}};")
    out.extend(call)
    out.depth = 0
    out.line("}")
    return out.text


def _native_call(kernel: Kernel, plan: NativePlan, env: Env) -> list[str]:
    native = "Bfloat16" if plan.a.load.dtype == BFLOAT16 else "Float16"
    source = "float" if kernel.scheme in TYPES else "uint16_t"
    tile = f"native90::{TYPES.get(kernel.scheme, native)}, {plan.columns}, {CLUSTER}"
    return [f"using Tile = native90::Tile<{tile}>;", *_run("native90", source, kernel, plan, env)]


def _fma_call(kernel: Kernel, plan: NativePlan, env: Env) -> list[str]:
    tile = kernel.tile
    using = f"using Tile = fma32::Tile<{tile.items}, {tile.lanes}>;"
    return [using, *_run("fma32", "", kernel, plan, env)]


def _run(space: str, source: str, kernel: Kernel, plan: NativePlan, env: Env) -> list[str]:
    """The problem, and its product by what is in namespace `space`."""
    layouts = [f"{space}::Layout::{x.layout}" for x in (plan.a, plan.b)]
    arguments = ", ".join(["Tile", *([source] if source else []), *layouts])
    return [
        f"const {space}::Problem problem = {{",
        f"    {_matrix(plan.a, env)},  // rows of the result: {plan.a.rows}",
        f"    {_matrix(plan.b, env)},  // columns of the result: {plan.b.rows}",
        f"    {plan.m}, {plan.n}, {plan.k}, {plan.batch}}};",
        f"return {space}::run<{arguments}>(",
        f"    problem, hole, {env.pointers[kernel.workspace]}, stream);",
    ]


def _matrix(x: Operand, env: Env) -> str:
    """`{data, row_stride, k_stride, batch_stride}`."""
    pointer = env.pointers[x.load.buffer]
    data = f"{pointer} + {x.offset}" if x.offset else pointer
    return f"{{{', '.join([data, *map(str, x.strides)])}}}"
