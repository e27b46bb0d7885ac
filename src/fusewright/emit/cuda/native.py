"""Products of emitted CUDA whose hole takes runs of columns: the hole, and the launch.

The product is `skeletons/native_sm90*.cuh`, `skeletons/gemm_mma.cuh` before Hopper, or, by
multiply-adds, `skeletons/gemm_fma.cuh`. What they share with Hopper's split product (names inside a
hole, the merging of folds) is in `contract`.
"""

from collections.abc import Sequence

from fusewright.emit.common import Buffers, buffer_order, function_name, header, signature
from fusewright.emit.cstyle import Env
from fusewright.emit.ctext import Writer, c_type
from fusewright.ir.dtypes import BFLOAT16, DType
from fusewright.ir.fma import fma_plan, fma_run
from fusewright.ir.kernel import Kernel, dot_of
from fusewright.ir.mma import kind_of, mma_plan
from fusewright.ir.native import NativePlan, Operand, native_plan
from fusewright.ir.onepass import Partial

from .contract import ContractionText, fold_functions, hole_env, kernel_partials, members_of
from .runs import apply_runs

ROOT = "native_sm90_launch.cuh"
FMA_ROOT, MMA_ROOT = "gemm_fma.cuh", "gemm_mma.cuh"
TYPES = {"bf16": "RoundedBfloat16", "tf32": "Tf32", "six": "Thirds"}
# CTAs that share the tile of B.
CLUSTER = 2


def native_contraction(kernel: Kernel, buffers: Buffers) -> ContractionText:
    """The text of a contraction kernel of a native scheme on Hopper."""
    plan, env = native_plan(kernel), hole_env(kernel)
    return contraction_text(kernel, buffers, env, plan.run, _native_call(kernel, plan, env), ROOT)


def mma_contraction(kernel: Kernel, buffers: Buffers) -> ContractionText:
    """The text of a contraction kernel on tensor cores before Hopper."""
    plan, env = mma_plan(kernel), hole_env(kernel)
    return contraction_text(kernel, buffers, env, plan.run, _mma_call(kernel, plan, env), MMA_ROOT)


def fma_contraction(kernel: Kernel, buffers: Buffers) -> ContractionText:
    """The text of a contraction kernel of scheme fma."""
    plan, env = fma_plan(kernel), hole_env(kernel)
    call = _fma_call(kernel, plan, env)
    return contraction_text(kernel, buffers, env, fma_run(plan.n), call, FMA_ROOT)


def contraction_text(
    kernel: Kernel,
    buffers: Buffers,
    env: Env,
    run: int,
    call: Sequence[str],
    root: str,
    phases: int = 1,
) -> ContractionText:
    """The text of a contraction whose hole takes `run` columns, enqueued by statements `call`.

    `phases`: so many rows at once, which alternate along the columns of the hole.
    """
    device, host = _hole(kernel, run, phases, env, buffers), _host(kernel, buffers, env, call)
    return ContractionText(device, host, function_name(kernel), root)


def _hole(kernel: Kernel, run: int, phases: int, env: Env, buffers: Buffers) -> str:
    """The struct whose functions take `run` columns at once."""
    partials = kernel_partials(kernel)
    out = Writer()
    out.extend(header(kernel, buffers))
    with out.block(f"struct {function_name(kernel)}_hole"):
        _constants(kernel, run, partials, out)
        if phases > 1:
            out.line(f"static constexpr int kPhases = {phases};  // rows that alternate in results")
        for b in members_of(kernel):
            const = "" if b in kernel.writes else "const "
            out.line(f"{const}{c_type(buffers[b].dtype, 'cuda')}* {env.pointers[b]};")
        apply_runs(kernel, run, partials, env, out, phases)
        fold_functions(kernel, partials, env, out)
    out.lines[-1] = "};"
    return out.text


def _result_type(kernel: Kernel) -> DType:
    return dot_of(kernel).dtype


def _constants(kernel: Kernel, run: int, partials: Sequence[Partial], out: Writer) -> None:
    over_n = "n" in {v.name for v in kernel.phases[0].cols} or not partials
    out.line(f"using Value = {c_type(_result_type(kernel), 'cuda')};")
    out.line(f"static constexpr int kRun = {run};")
    out.line(f"static constexpr int kPartialWords = {sum(p.words for p in partials)};")
    out.line(f"static constexpr bool kFoldsOverN = {str(over_n).lower()};")


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
    source = "float" if kernel.scheme in TYPES else "uint16_t"
    tile = f"native90::{_type(kernel, plan)}, {plan.columns}, {CLUSTER}"
    arguments = ["Tile", source, *_layouts("native90", plan)]
    using = f"using Tile = native90::Tile<{tile}>;"
    return [using, *_run("native90", "native90", arguments, kernel, plan, env)]


def _mma_call(kernel: Kernel, plan: NativePlan, env: Env) -> list[str]:
    packed = kind_of(kernel.scheme).format
    formats = (packed if x.layout == "kPacked" else "void" for x in (plan.a, plan.b))
    arguments = [f"mma80::{_type(kernel, plan)}", *formats]
    return _run("tiles", "mma80", arguments, kernel, plan, env)


def _fma_call(kernel: Kernel, plan: NativePlan, env: Env) -> list[str]:
    using = f"using Tile = fma32::Tile<{kernel.tile.items}, {kernel.tile.lanes}>;"
    arguments = ["Tile", *_layouts("fma32", plan)]
    return [using, *_run("fma32", "fma32", arguments, kernel, plan, env)]


def _type(kernel: Kernel, plan: NativePlan) -> str:
    """The skeletons' name of the operands' type."""
    native = "Bfloat16" if plan.a.load.dtype == BFLOAT16 else "Float16"
    return TYPES.get(kernel.scheme, native)


def _layouts(space: str, plan: NativePlan) -> list[str]:
    return [f"{space}::Layout::{x.layout}" for x in (plan.a, plan.b)]


def _run(
    problem: str,
    space: str,
    arguments: Sequence[str],
    kernel: Kernel,
    plan: NativePlan,
    env: Env,
) -> list[str]:
    """The problem, of namespace `problem`, and its product by what is in `space`."""
    return [
        f"const {problem}::Problem problem = {{",
        f"    {_matrix(plan.a, env)},  // rows of the result: {plan.a.rows}",
        f"    {_matrix(plan.b, env)},  // columns of the result: {plan.b.rows}",
        f"    {plan.m}, {plan.n}, {plan.k}, {plan.batch}}};",
        f"return {space}::run<{', '.join(arguments)}>(",
        f"    problem, hole, {env.pointers[kernel.workspace]}, stream);",
    ]


def _matrix(x: Operand, env: Env) -> str:
    """`{data, row_stride, k_stride, batch_stride}`."""
    pointer = env.pointers[x.load.buffer]
    data = f"{pointer} + {x.offset}" if x.offset else pointer
    return f"{{{', '.join([data, *map(str, x.strides)])}}}"
