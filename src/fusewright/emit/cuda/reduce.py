"""Row and column reductions of emitted CUDA: which thread owns which rows and columns.

row_reduce: `lanes` threads share a row, each with vectors of neighbouring columns, `lanes` vectors
apart. column_reduce: threads own vectors of neighbouring rows, and `lanes` groups of threads split
the columns. What they do with their columns is in `phases`.
"""

from math import prod

from fusewright.emit.cstyle import Env
from fusewright.emit.ctext import Writer
from fusewright.errors import IRError
from fusewright.ir.index import Var
from fusewright.ir.kernel import Kernel

from .access import VectorAxis, usable_width
from .loops import Launch, block_position, index_type, positions
from .phases import Reduction, Threads
from .scan import Scans

# Static shared memory of a block.
SHARED_BYTES = 48 << 10


def row_reduce(kernel: Kernel, env: Env, out: Writer) -> Launch:
    """Rows by groups of `lanes` threads; more than 32 lanes are a whole block."""
    lanes, rows = kernel.tile.lanes, kernel.row_count
    if lanes & (lanes - 1) or lanes > 1024:
        raise IRError(f"{kernel.name}: {lanes} lanes; row_reduce needs a power of two up to 1024")
    threads = lanes if lanes > 32 else max(kernel.tile.threads, 32)
    per_block = threads // lanes
    flat = _row_name(kernel, env)
    place = "threadIdx.x" if per_block == 1 else f"threadIdx.x % {lanes}"
    with out.declared("lane", f"const int lane = {place};"):
        live = _row_position(kernel, flat, per_block, lanes, env, out)
        grid = Threads(
            "row_reduce", threads, lanes, kernel.tile.items, kernel.tile.vector,
            number="lane" if lanes > 1 else "0",
            leader="lane == 0" if lanes > 1 else "",
            live=live,
            row_axis=VectorAxis(None, 1),
        )
        with positions(kernel.rows, flat, env, out):
            _writer(kernel)(kernel, grid, out, env.names.fresh("col_at")).write(env)
    return Launch(-(-rows // per_block), threads)


def _writer(kernel: Kernel) -> type[Reduction]:
    return Scans if any(p.scans for p in kernel.phases) else Reduction


def _row_name(kernel: Kernel, env: Env) -> str:
    """The variable that numbers rows: the only row variable, or a number that is taken apart."""
    return env.variables[kernel.rows[0]] if len(kernel.rows) == 1 else env.names.fresh("row_at")


def _row_position(
    kernel: Kernel, flat: str, per_block: int, lanes: int, env: Env, out: Writer
) -> str:
    """Declares the row of this thread, always a valid one; returns the condition for live."""
    rows = kernel.row_count
    kind = index_type(rows)
    where = block_position(per_block, rows)
    if per_block > 1:
        where += f" + threadIdx.x / {lanes}" if lanes > 1 else " + threadIdx.x"
    if rows % per_block == 0:
        if kernel.rows:
            out.line(f"const {kind} {flat} = {where};")
        return ""
    unclamped = env.names.fresh(f"{flat}_wanted")
    out.line(f"const {kind} {unclamped} = {where};")
    out.line(f"const bool live = {unclamped} < {rows};")
    if kernel.rows:
        out.line(f"const {kind} {flat} = live ? {unclamped} : {rows - 1};")
    return "live"


def column_reduce(kernel: Kernel, env: Env, out: Writer) -> Launch:
    """Threads along the innermost row axis, a vector each; `lanes` groups split the columns."""
    if not kernel.rows:
        raise IRError(f"{kernel.name}: column_reduce needs a row axis")
    *outer, inner = kernel.rows
    width = usable_width(kernel.tile.vector, inner.extent)
    lanes, threads = _groups(kernel, width)
    across = threads // lanes
    blocks = -(-inner.extent // (across * width))
    total = prod(v.extent for v in outer)
    if lanes > 1:
        out.line(f"const int group = threadIdx.x / {across};")
    live = _column_position(inner, width, across, lanes, blocks if outer else 1, env, out)
    grid = Threads(
        "column_reduce", threads, lanes, kernel.tile.items, width,
        number="group" if lanes > 1 else "0",
        leader="group == 0" if lanes > 1 else "",
        live=live,
        row_axis=VectorAxis(inner, width),
    )
    flat = env.variables[outer[0]] if len(outer) == 1 else env.names.fresh("outer")
    if outer:
        block = "blockIdx.x" if blocks == 1 else f"blockIdx.x / {blocks}"
        out.line(f"const int {flat} = {block};")
    with positions(outer, flat, env, out):
        _writer(kernel)(kernel, grid, out, env.names.fresh("col_at")).write(env)
    return Launch(blocks * total, threads)


def _groups(kernel: Kernel, width: int) -> tuple[int, int]:
    """(groups, threads): the tile's, with fewer groups when their partial results need too much.

    Every fold has a static array of one value per thread and vector lane.
    """
    lanes, threads = kernel.tile.lanes, kernel.tile.threads
    if threads % lanes or threads > 1024:
        raise IRError(f"{kernel.name}: {threads} threads cannot be split in {lanes} groups")
    per_thread = sum(16 if f.position is not None else max(f.dtype.bytes, 4)
                     for p in kernel.phases for f in (*p.folds, *p.scans, *p.scans)) * width
    while lanes > 1 and per_thread * threads > SHARED_BYTES:
        threads, lanes = threads // 2, lanes // 2
    return lanes, threads


def _column_position(
    inner: Var, width: int, across: int, lanes: int, blocks: int, env: Env, out: Writer
) -> str:
    """Declares the first row of this thread's vector; returns the condition that it is live."""
    name, kind = env.variables[inner], index_type(inner.extent)
    per_block = across * width
    thread = "threadIdx.x" if lanes == 1 else f"threadIdx.x % {across}"
    terms = [thread if width == 1 else f"{thread} * {width}"]
    if per_block < inner.extent:
        block = "blockIdx.x" if blocks == 1 else f"blockIdx.x % {blocks}"
        terms.insert(0, f"{block} * {per_block}")
    where = " + ".join(terms)
    if inner.extent % per_block == 0:
        out.line(f"const {kind} {name} = {where};")
        return ""
    wanted = env.names.fresh(f"{name}_wanted")
    out.line(f"const {kind} {wanted} = {where};")
    out.line(f"const bool live = {wanted} < {inner.extent};")
    out.line(f"const {kind} {name} = live ? {wanted} : {inner.extent - width};")
    return "live"
