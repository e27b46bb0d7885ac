"""Loops of emitted C++: OpenMP pragmas, loop heads, stores, and the elementwise anchor.

The loops are written so that the compiler vectorises them without -ffast-math. Reductions live in
`rows` and `columns`, scalar bodies in `cstyle`.
"""

from collections.abc import Callable, Collection, Sequence
from math import prod

from fusewright.emit.cindex import is_wide
from fusewright.emit.common import has_checks, kernel_cost
from fusewright.emit.cstyle import Env, evaluate, name_value
from fusewright.emit.ctext import Text, Writer
from fusewright.ir.body import Apply, Expr, Guarded, Load, Ref, substitute, walk
from fusewright.ir.index import Index, Var, const
from fusewright.ir.kernel import Kernel, Phase, Store
from fusewright.ir.scalar import OPS

# Below this many operations a second thread costs more than it gives.
PARALLEL_COST = 1 << 17
# Elements of the innermost axis per task where the outer axes alone give too few tasks.
CHUNK = 4096
# Operations (by `ScalarOp.cost`) that are worth computing once for a loop.
WORTH_A_NAME = 4
# Tasks that keep all cores of a large host busy.
ENOUGH_TASKS = 64


def loop_type(v: Var) -> str:
    """The type of a loop variable that counts to (and one step past) the extent."""
    return "int64_t" if is_wide(0, v.extent + 2**20) else "int"


def is_parallel(kernel: Kernel) -> bool:
    """Whether the kernel has enough work for several threads."""
    return kernel.row_count > 1 and kernel_cost(kernel) >= PARALLEL_COST


def parallel_for(kernel: Kernel, collapse: int, simd: bool = False) -> str:
    """The pragma of the outermost loops."""
    text = f"#pragma omp parallel for{' simd' if simd else ''} schedule(static)"
    text += f" collapse({collapse})" if collapse > 1 else ""
    return text + (" reduction(| : failed)" if has_checks(kernel) else "")


def simd_pragma(kernel: Kernel) -> str:
    """The pragma of an innermost loop."""
    return "#pragma omp simd" + (" reduction(| : failed)" if has_checks(kernel) else "")


def for_loop(v: Var, env: Env) -> str:
    """`for (int i = 0; i < extent; i++)`."""
    name = env.variables[v]
    return f"for ({loop_type(v)} {name} = 0; {name} < {v.extent}; {name}++)"


def elementwise(kernel: Kernel, env: Env, out: Writer) -> None:
    """Loops over the rows, the innermost one vectorised."""
    if not kernel.rows:
        elementwise_body(kernel.phases, env, out)
        return
    *outer, inner = kernel.rows
    parallel = is_parallel(kernel)
    if parallel and outer and prod(v.extent for v in outer) < ENOUGH_TASKS:
        _chunked(kernel, outer, inner, env, out)
        return
    if parallel and not outer:
        env = with_fixed(kernel.bodies, (inner,), env, out)
    if parallel:
        out.line(parallel_for(kernel, len(outer), simd=not outer))
    nest(outer, env, out, lambda: _inner_loop(kernel, inner, env, out, not outer and parallel))


def with_fixed(bodies: Sequence[Expr], inner: Collection[Var], env: Env, out: Writer) -> Env:
    """Computes what is the same for all of the loops over `inner` before them: the checked indices
    of gathers, which compilers do not move past the note of a failed check, and what is costly and
    may have branches, such as a sigmoid."""
    found: dict[Expr, str] = {}
    seen: set[Expr] = set()
    stack = list(reversed(bodies))
    while stack:
        e = stack.pop()
        if e in seen or e in env.loaded or isinstance(e, Guarded):
            continue
        seen.add(e)
        if isinstance(e, Apply) and is_fixed(e, inner) and is_worth_a_name(e):
            found[e] = f"{e.op}_1"
            continue
        stack.extend(reversed(e.operands))
        if isinstance(e, Load):
            name = f"{env.pointers[e.buffer]}_at"
            found |= {x: name for x, _ in e.indirect if is_fixed(x, inner)}
    return env.with_loaded({x: name_value(name, x, env, out) for x, name in found.items()})


def is_worth_a_name(e: Expr) -> bool:
    """Whether a value is computed once rather than for every point of a loop."""
    return any(isinstance(x, Apply) and OPS[x.op].cost >= WORTH_A_NAME for x in walk(e))


def is_fixed(e: Expr, inner: Collection[Var]) -> bool:
    """Whether a value is the same for all of the loops over `inner`."""
    first: dict[Index, Index] = {v: const(0) for v in inner}
    return substitute(e, first) == e and not any(isinstance(x, Ref) for x in walk(e))


def _inner_loop(kernel: Kernel, inner: Var, env: Env, out: Writer, has_pragma: bool) -> None:
    if not has_pragma:
        env = with_fixed(kernel.bodies, (inner,), env, out)
        out.line(simd_pragma(kernel))
    with out.block(for_loop(inner, env)):
        elementwise_body(kernel.phases, env, out)


def _chunked(kernel: Kernel, outer: Sequence[Var], inner: Var, env: Env, out: Writer) -> None:
    """Few outer points: tasks are chunks of the innermost axis."""
    name, kind = env.variables[inner], loop_type(inner)
    begin, end = env.names.fresh(f"{name}_begin"), env.names.fresh(f"{name}_end")

    def chunks() -> None:
        head = f"for ({kind} {begin} = 0; {begin} < {inner.extent}; {begin} += {CHUNK})"
        with out.block(head):
            out.line(
                f"const {kind} {end} = fw_minimum<{kind}>({begin} + {CHUNK}, {inner.extent});"
            )
            here = with_fixed(kernel.bodies, (inner,), env, out)
            out.line(simd_pragma(kernel))
            with out.block(f"for ({kind} {name} = {begin}; {name} < {end}; {name}++)"):
                elementwise_body(kernel.phases, here, out)

    out.line(parallel_for(kernel, len(outer) + 1))
    nest(outer, env, out, chunks)


def nest(variables: Sequence[Var], env: Env, out: Writer, body: Callable[[], None]) -> None:
    """Loops over `variables` around what `body()` writes."""
    if not variables:
        body()
        return
    with out.block(for_loop(variables[0], env)):
        nest(variables[1:], env, out, body)


def elementwise_body(phases: Sequence[Phase], env: Env, out: Writer) -> None:
    """The statements of one point: keeps, then stores, phase by phase."""
    for phase in phases:
        for keep in phase.keeps:
            env = env.with_refs({keep.name: name_value(keep.name, keep.body, env, out)})
        write_stores(phase.stores, env, out)


def write_stores(stores: Sequence[Store], env: Env, out: Writer) -> None:
    """Writes `buffer[offset] = body;` for each store, their values computed together."""
    assign_stores(stores, evaluate([s.body for s in stores], env, out), env, out)


def assign_stores(stores: Sequence[Store], values: Sequence[Text], env: Env, out: Writer) -> None:
    """Writes `buffer[offset] = value;` for each store."""
    for store, value in zip(stores, values, strict=True):
        at = env.index.text(store.offset).code
        out.line(f"{env.pointers[store.buffer]}[{at}] = {value.code};")
