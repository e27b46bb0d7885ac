"""What the CUDA anchors share: positions of threads, unrolled chunks, and the elementwise anchor.

Reductions live in `reduce`, memory accesses in `access`, scalar bodies in `cstyle`.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from math import prod

from fusewright.emit.cindex import is_wide
from fusewright.emit.cstyle import Env
from fusewright.emit.ctext import Writer
from fusewright.errors import IRError
from fusewright.ir import index as ix
from fusewright.ir import offsets
from fusewright.ir.index import Index, Var
from fusewright.ir.kernel import Kernel
from fusewright.ir.phases import without_keeps

from .access import (
    VectorAxis,
    declare_fetches,
    guard,
    loaded,
    nothing,
    plan_fetches,
    unrolled,
    usable_width,
    write_fetches,
    write_lanes,
)

MAX_GRID = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Launch:
    """The grid of a kernel: blocks, threads per block, bytes of dynamic shared memory per block,
    blocks per cluster."""

    blocks: int
    threads: int
    shared: int = 0
    cluster: int = 1


def index_type(extent: int) -> str:
    """The type that counts to `extent` and one block beyond it."""
    return "long long" if is_wide(0, extent + 2**20) else "int"


def block_position(scale: int, extent: int, turns: int = 1) -> str:
    """`blockIdx.x / turns * scale`, in 64 bits when positions below `extent` need them."""
    block = "(long long)blockIdx.x" if index_type(extent) == "long long" else "blockIdx.x"
    block = block if turns == 1 else f"{block} / {turns}"
    return block if scale == 1 else f"{block} * {scale}"


@contextmanager
def positions(
    variables: Sequence[Var], flat: str, env: Env, out: Writer
) -> Iterator[None]:
    """Recovers the loop variables from the row-major position `flat`, those that are used.

    A single variable is expected to be called `flat` itself.
    """
    if len(variables) < 2:
        yield
        return
    whole = Var("flat", prod(v.extent for v in variables))
    shape = tuple(v.extent for v in variables)
    printer = env.with_variables({whole: flat}).index
    with ExitStack() as stack:
        for v, x in zip(variables, offsets.unflatten(_as_index(whole), shape), strict=True):
            name = env.variables[v]
            line = f"const {index_type(v.extent)} {name} = {printer.text(x).code};"
            stack.enter_context(out.declared(name, line))
        yield


def _as_index(v: Var) -> Index:
    return v if v.extent > 1 else ix.const(0)


# ------------------------------------------------------------------------------------- elementwise


def elementwise(kernel: Kernel, env: Env, out: Writer) -> Launch:
    """`items` vectors per thread, a block's width apart: loads first, then values and stores.

    With `lanes`, so many neighbouring blocks are at the same place of so many outermost rows.
    """
    turns = kernel.tile.lanes
    if turns > 1:
        outer, *rest = kernel.rows
        if outer.extent != turns or not rest:
            raise IRError(f"{kernel.name}: {turns} lanes are not the outermost rows")
        out.line(f"const {index_type(turns)} {env.variables[outer]} = blockIdx.x % {turns};")
        kernel = replace(kernel, rows=tuple(rest))
    inner = kernel.rows[-1] if kernel.rows else None
    width = usable_width(kernel.tile.vector, inner.extent) if inner else 1
    axis = VectorAxis(inner, width)
    points, threads, items = kernel.row_count, kernel.tile.threads, kernel.tile.items
    items = max(1, min(items, -(-points // (threads * width))))
    per_block = threads * width * items
    flat = env.variables[inner] if len(kernel.rows) == 1 and inner else env.names.fresh("at")
    first = env.names.fresh("first") if items > 1 else flat
    kind = index_type(points)
    out.line(f"const {kind} {first} = {_thread_position(per_block, width, points, turns)};")
    bound = f"{flat} < {points}" if points % per_block else ""
    phases = without_keeps(kernel.phases)
    stores = [s for p in phases for s in p.stores]
    fetches = plan_fetches([s.body for s in stores], axis, env)
    slot = "[item]" if items > 1 else ""

    def here() -> None:
        if items > 1:
            out.line(f"const {kind} {flat} = {first} + item * {threads * width};")

    early = items > 1 or width > 1
    if early and items > 1:
        declare_fetches(fetches, axis, items, out)
        with unrolled("item", items, out):
            here()
            with guard(bound, out), positions(kernel.rows, flat, env, out):
                write_fetches(fetches, axis, slot, env, out, declare=False)
    with unrolled("item", items, out):
        here()
        with guard(bound, out), positions(kernel.rows, flat, env, out):
            if early and items == 1:
                write_fetches(fetches, axis, "", env, out, declare=True)
            inside = env.with_loaded(loaded(fetches, slot)) if early else env
            write_lanes([], nothing, stores, axis, inside, out)
    return Launch(-(-points // per_block) * turns, threads)


def _thread_position(per_block: int, width: int, points: int, turns: int) -> str:
    text = f"{block_position(per_block, points, turns)} + threadIdx.x"
    return f"{text} * {width}" if width > 1 else text
