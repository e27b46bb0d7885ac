"""Anchor and tile of a nest, and the numbers for them that were tuned on machines.

The choice is analytic, from the nest and the table of the target; nothing is timed here. Tiles of
products are not chosen here but in `contraction`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import gcd, prod

from fusewright.ir import body as b
from fusewright.ir import index as ix
from fusewright.ir.index import Index, Var
from fusewright.ir.kernel import (
    AnchorName,
    Buffer,
    Phase,
    Tile,
    shared_slots,
    streamed_load,
    transposition,
)
from fusewright.ir.sliding import COLUMNS, Layout, sliding
from fusewright.ir.stencil import stencil
from fusewright.target.arch import Arch

# Shared memory of one chunk of a stream at most, and of all: two large chunks are as good as three
# (128 x 4096 x 4095: 2.92 ms, and 2.94 with three).
STAGE_BYTES, STREAM_BYTES = 72 << 10, 144 << 10
# 32-bit registers for a thread's chunk of a scan; the threads of a block that share a row, half as
# many where a thread's chunk reads more bytes than this: two blocks share a multiprocessor.
SCAN_REGISTERS = 16
SCAN_LANES = 512
FETCH_BYTES = 64

# Points of a pooling window, its stride and dilation up to which one thread folds a window, and
# points that it takes without a loop.
LARGEST_WINDOW = 512
LARGEST_STRIDE = 8
LARGEST_UNROLLED = 64
# Threads of a block of a cluster; shared memory that it needs besides its part of the row (1 KB of
# the system's, results of folds, the ragged end of the row).
CLUSTER_THREADS = 512
# Rows from which a thread per row keeps a GPU busy.
MANY_ROWS = 1 << 17
# 32-bit values that the threads of one block keep in registers.
REGISTER_VALUES = 1024 * 32
# Broadcast values of this size do not survive in a GPU's cache beside a stream of others.
REUSED_BYTES = 8 << 20
SHARED_OVERHEAD = 4 << 10
# Points of a transposed tile: eight loads in flight for each of 256 threads.
TURNED_POINTS = 2048

# Loads of an element that the first cache serves at memory's rate. Threads of a row of places and
# of a block of windows; bytes that a thread of it has in flight (half as many where it loads
# ahead); blocks per multiprocessor; a thread's 32-bit values, and a block's shared memory, up to
# which enough blocks are resident.
CACHED_LOADS = 4
WINDOW_LANES = 256
WINDOW_THREADS = 128
WINDOW_FETCH = 32
WINDOW_WAVES = 32
WINDOW_REGISTERS = 96
WINDOW_SHARED = 24 << 10

# Taps of a stencil that are taken without a loop. A thread's windows lie over so many places at
# least, and over more while they reach over too many others, as far as registers hold them.
LARGEST_STENCIL = 64
STENCIL_LEAST, STENCIL_OTHERS, STENCIL_MOST = 8, 0.4, 24

# Threads that read neighbouring rows together.
WARP = 32
# Vectors of stores along an axis up to which neighbouring threads read beside each other.
NEIGHBOURS = 16

Accesses = tuple[tuple[str, Index], ...]


@dataclass(frozen=True, slots=True)
class Nest:
    """What a tile is chosen for: a kernel's loops over `buffers`, on a target."""

    rows: tuple[Var, ...]
    phases: tuple[Phase, ...]
    buffers: Mapping[str, Buffer]
    arch: Arch

    @property
    def points(self) -> int:
        """How many rows there are."""
        return prod(v.extent for v in self.rows)

    @property
    def extent(self) -> int:
        """Columns of the longest phase."""
        return max(p.extent for p in self.phases)

    @property
    def inner(self) -> Var | None:
        """The innermost row variable."""
        return self.rows[-1] if self.rows else None


def accesses(phases: tuple[Phase, ...]) -> Accesses:
    """(buffer, offset) of every load and store of the phases but gathers, once each."""
    out: dict[tuple[str, Index], None] = {}
    for p in phases:
        out.update(((e.buffer, e.offset), None) for e in b.loads(*p.bodies) if not e.indirect)
        out.update(((s.buffer, s.offset), None) for s in p.stores)
    return tuple(out)


def _moved(nest: Nest, phase: Phase) -> list[tuple[int, Index]]:
    """(bytes, offset) of what a phase moves: whole buffers, but for a gather what it reads."""
    points = phase.extent * nest.points
    gathers = dict.fromkeys((e.dtype, e.offset) for e in b.loads(*phase.bodies) if e.indirect)
    direct = [(nest.buffers[name].nbytes, offset) for name, offset in accesses((phase,))]
    return [*direct, *((points * dtype.bytes, offset) for dtype, offset in gathers)]


def choose_anchor(nest: Nest) -> AnchorName:
    """Which way the nest is walked: along contiguous cols, else along the rows."""
    if not any(p.cols for p in nest.phases):
        turned = nest.arch.kind == "cuda" and transposition(nest.rows, nest.phases) is not None
        return "transpose" if turned else "elementwise"
    if nest.arch.kind == "cuda" and _stencil_tile(nest) is not None:
        return "stencil"
    if nest.arch.kind == "cuda" and _slides(nest):
        if nest.rows[-1].extent < WARP:
            return "row_reduce"
        shared = _window_tile(nest) is not None
        return "window" if shared else "column_reduce"
    along_cols = along_rows = 0
    for p in nest.phases:
        if not p.cols:
            continue
        for moved, offset in _moved(nest, p):
            along_cols += moved * (ix.coefficient(offset, p.cols[-1]) == 1)
            along_rows += moved * bool(nest.rows and ix.coefficient(offset, nest.rows[-1]) == 1)
    shortest = min(p.extent for p in nest.phases if p.cols)
    by_rows = along_rows and (along_rows > along_cols or shortest < 4)
    if any(p.scans for p in nest.phases):
        return "column_scan" if by_rows else "row_scan"
    if by_rows:
        streams = _stream_tile(nest) is not None
        return "column_stream" if streams else "column_reduce"
    return "row_reduce"


def _slides(nest: Nest) -> bool:
    """Whether neighbouring rows fold overlapping or adjoining short windows (pooling): a thread
    per row then finds its neighbours' data in the cache, and threads of a row would idle. What is
    the same for all rows (weights of the taps) is anyone's."""
    if not nest.rows or max(p.extent for p in nest.phases if p.cols) > LARGEST_WINDOW:
        return False
    if nest.rows[-1].extent < WARP and nest.points < MANY_ROWS:
        return False
    steps = [
        ix.coefficient(e.offset, v)
        for p in nest.phases
        for e in b.loads(*p.bodies)
        if (met := ix.variables(e.offset)) and nest.rows[-1] in met
        if any(v in p.cols for v in met)
        for v in (nest.rows[-1], p.cols[-1])
    ]
    return bool(steps) and all(s is not None and 0 < s <= LARGEST_STRIDE for s in steps)


def _window_tile(nest: Nest) -> Tile | None:
    """The tile of overlapping windows: a row of places per block or a part of it, enough loads in
    flight, and as many rows of windows as leave blocks for the whole target."""
    found = sliding(nest.rows, nest.phases)
    if found is None or not found.loads:
        return None
    points = prod(v.extent for v in (*nest.rows, *nest.phases[0].cols))
    if points < CACHED_LOADS * max(nest.buffers[e.buffer].size for e in found.loads):
        return None
    vector = vector_width(nest, found.at, tuple((e.buffer, e.offset) for e in found.loads))
    down, across = found.down, found.across.row.extent
    fetched = max(vector, COLUMNS) * sum(e.dtype.bytes for e in found.loads)
    if down is None:
        high, items = 1, -(-WINDOW_FETCH // fetched)
    else:
        high = down.row.extent
        items = min(high, -(-WINDOW_FETCH // (2 * fetched * down.stride)))
    columns = max(vector, COLUMNS) * (items if down is None else 1)
    lanes = min(WINDOW_LANES, -(-found.at.extent // columns))
    groups = max(1, WINDOW_THREADS // lanes)
    tile = Tile(groups * lanes, vector, items, lanes)
    layout = Layout(found, tile)
    if not layout.whole and 2 * layout.outputs * found.across.stride < layout.columns:
        return None
    outer = nest.points // (high * across)
    blocks = -(-outer // groups) * layout.tiles
    steps = -(-high // layout.rows)
    while steps > 4 and blocks * -(-high // (layout.rows * steps)) < WINDOW_WAVES * nest.arch.units:
        steps = -(-steps // 2)
    layout = Layout(found, replace(tile, stages=steps))
    fits = layout.shared_bytes <= WINDOW_SHARED and layout.registers <= WINDOW_REGISTERS
    return layout.tile if fits else None


def _stencil_tile(nest: Nest) -> Tile | None:
    """The tile of short folds that weigh what slides: as many windows per thread as its registers
    hold the places of, and as leave threads for the whole target."""
    found = stencil(nest.rows, nest.phases)
    if found is None or nest.phases[0].extent > LARGEST_STENCIL:
        return None
    if sliding(nest.rows, nest.phases) is not None:
        return None
    offsets = [e.offset for _, value in found.values for e in b.loads(value)]
    steps = [ix.coefficient(x, nest.rows[-1]) for x in offsets if nest.rows[-1] in ix.variables(x)]
    if not steps or any(s is None or not 0 < s <= LARGEST_STRIDE for s in steps):
        return None
    if found.slide is None and not _slides(nest):
        return None
    items = max(1, STENCIL_LEAST // found.stride)
    while found.depth(items) > (1 + STENCIL_OTHERS) * found.stride * items:
        if found.depth(2 * items) > STENCIL_MOST:
            break
        items *= 2
    items, points = min(items, found.row.extent), nest.points
    while items > 1 and (
        found.depth(items) > STENCIL_MOST or points // items < nest.arch.units * nest.arch.threads
    ):
        items //= 2
    return Tile(threads=256, items=items)


def _stream_tile(nest: Nest) -> Tile | None:
    """The tile of a column_stream where it pays: planes for most multiprocessors, rows that no
    vector access divides (aligned ones reach the same rate without shared memory)."""
    load, arch = streamed_load(nest.rows, nest.phases), nest.arch
    if load is None or not arch.hopper:
        return None
    row, phase = nest.rows[-1], nest.phases[0]
    inner, planes = row.extent, nest.points // row.extent
    row_bytes, columns = inner * load.dtype.bytes, phase.extent
    items = arch.vector_bytes // gcd(arch.vector_bytes, row_bytes)
    start = ix.substitute(load.offset, {row: ix.const(0), phase.cols[0]: ix.const(0)})
    constant, terms = ix.parts(start)
    aligned = arch.vector_bytes // load.dtype.bytes
    if any(c % aligned for c in (constant, *(c for c, _ in terms))) or row_bytes % 16 == 0:
        return None
    while items * 2 * row_bytes <= STAGE_BYTES // 2 and columns % (items * 2) == 0:
        items *= 2
    if planes < arch.units * 7 // 8 or columns % items or items * row_bytes > STAGE_BYTES:
        return None
    stages = min(4, STREAM_BYTES // (items * row_bytes))
    threads = min(1024, _power_of_two_at_least(inner))
    sums = sum(f.kind == "sum" for f in phase.folds)
    held = items * -(-inner // threads) * (len(phase.folds) + sums)
    # An item has one accumulator and one total: longer float sums lose accuracy beside
    # column_reduce, whose lanes are more.
    short = columns // items <= 2048 or not sums
    return Tile(threads, 1, items, 1, stages) if held <= 64 and short else None


def vector_width(nest: Nest, inner: Var | None, touched: Accesses) -> int:
    """Elements per access along `inner`: the widest power of two for which every access is either
    contiguous and aligned or the same for all elements of a vector."""
    sizes = [nest.buffers[n].dtype.bytes for n, o in touched if inner and ix.coefficient(o, inner)]
    if inner is None or not sizes or nest.arch.kind != "cuda":
        return 1
    width = gcd(nest.arch.vector_bytes // max(sizes), inner.extent)
    while width > 1 and not all(_uniform(offset, inner, width) for _, offset in touched):
        width //= 2
    return width


def _uniform(offset: Index, inner: Var, width: int) -> bool:
    lane = Var("vector_lane", width)
    chunk = ix.var("vector_chunk", inner.extent // width)
    offset = ix.substitute(offset, {inner: chunk * width + lane})
    step = ix.coefficient(offset, lane)
    constant, terms = ix.parts(offset)
    aligned = gcd(width, constant, *(c for c, a in terms if a != lane)) == width
    return step == 0 or (step == 1 and aligned)


def _power_of_two_at_most(n: int) -> int:
    return 1 << (max(n, 1).bit_length() - 1)


def _power_of_two_at_least(n: int) -> int:
    return 1 << (max(n, 1) - 1).bit_length()


def _elementwise(nest: Nest) -> Tile:
    touched = accesses(nest.phases)
    vector, arch = vector_width(nest, nest.inner, touched), nest.arch
    if vector == 1:
        vector = _stored_vector(nest)
    moved = (nest.buffers[n] for n, _ in touched)
    per_thread = sum(x.dtype.bytes for x in moved if x.role != "output")
    wanted = -(-arch.in_flight // (arch.threads * max(per_thread, 1) * vector))
    enough = nest.points // (arch.units * arch.threads * vector)
    return Tile(256, vector, max(1, min(wanted, 4, enough)), _rows_in_turn(nest, touched))


def _stored_vector(nest: Nest) -> int:
    """The width of the stores where loads run along the axis before the innermost one, which is
    short: threads with a vector each then have neighbouring places of that axis."""
    stores = tuple((s.buffer, s.offset) for p in nest.phases for s in p.stores)
    vector = vector_width(nest, nest.inner, stores)
    if len(nest.rows) < 2 or vector == 1 or nest.rows[-1].extent > NEIGHBOURS * vector:
        return 1
    along = nest.rows[-2]
    moving = [e.offset for p in nest.phases for e in b.loads(*p.bodies) if not e.indirect]
    return vector if any(ix.coefficient(x, along) == 1 for x in moving) else 1


def _rows_in_turn(nest: Nest, touched: Accesses) -> int:
    """The extent of the outermost axis where blocks walk it first: large values are broadcast
    along it, which a cache would have lost by the next row."""
    if len(nest.rows) < 2 or nest.rows[0].extent == 1:
        return 1
    outermost = nest.rows[0]
    same = (nest.buffers[n].nbytes for n, x in touched if outermost not in ix.variables(x))
    return outermost.extent if max(same, default=0) > REUSED_BYTES else 1


def _transpose(nest: Nest) -> Tile | None:
    """Tiles of about the same number of points, whole warps along either axis where it is long."""
    turned = transposition(nest.rows, nest.phases)
    if turned is None:
        return None
    most = _power_of_two_at_least(turned.stored.extent)
    along = min(_power_of_two_at_least(turned.loaded.extent), TURNED_POINTS // min(most, 64))
    across = min(most, TURNED_POINTS // along)
    threads = min(256, along * across)
    return Tile(threads, 1, along * across // threads, along)


def _row_reduce(nest: Nest) -> Tile:
    """Threads per row by row length (QuACK's table, performance.md section 3), 1-4 vectors each."""
    vector = _row_vector(nest)
    extent = nest.extent
    if _slides(nest):
        return Tile(256, 1, _window_items(extent), 1)
    kept = sum(len(p.keeps) for p in nest.phases)
    chunks = -(-extent // vector)
    lanes = (
        _power_of_two_at_most(max(chunks // 2, 1))
        if chunks < 128
        else (_power_of_two_at_least(-(-chunks // 8)))
    )
    lanes = min(max(lanes, 1), 1024)
    if kept:
        lanes = max(lanes, _power_of_two_at_least(-(-extent * kept // 32)))
        lanes = min(lanes, 1024)
    elif nest.points >= 8 * nest.arch.units:
        lanes = min(lanes, 512)
    if lanes > 32:
        return Tile(lanes, vector, min(4, -(-chunks // lanes)), lanes)
    return Tile(max(128, lanes), vector, min(4, -(-chunks // lanes)), lanes)


def _window_items(extent: int) -> int:
    """Points of a window that its thread reads before it folds them."""
    return extent if extent <= LARGEST_UNROLLED else 16


def cluster_tile(nest: Nest) -> Tile | None:
    """The tile of a row_cluster, None where the row's kept values do not fit a cluster's memory.

    Nor where the first cache holds a row: reading it again is faster than exchanging results. Two
    blocks per multiprocessor where that is possible: one loads while the other stores.
    """
    walked = [p for p in nest.phases if p.cols]
    size = sum(n for _, n in set(shared_slots(nest.phases).values())) * walked[0].extent
    widths = (e.dtype.bytes for p in walked for e in b.loads(*p.bodies))
    read = max(widths, default=0) * walked[0].extent
    if not size or read < 4 * REGISTER_VALUES or any(p.cols != walked[0].cols for p in walked):
        return None
    vector, threads = _row_vector(nest), CLUSTER_THREADS
    for resident in (2, 1):
        room = nest.arch.shared // resident - SHARED_OVERHEAD
        blocks = _power_of_two_at_least(-(-size // room))
        if blocks <= nest.arch.cluster:
            return Tile(threads, vector, min(8, max(1, 16 // vector)), threads * blocks)
    return None


def _row_vector(nest: Nest) -> int:
    widths = [
        vector_width(nest, p.cols[-1], touched)
        for p in nest.phases
        if p.cols and (touched := accesses((p,)))
    ]
    return min(widths, default=1)


def _scan_items(nest: Nest, vector: int) -> int:
    """Vectors of a thread in a chunk of a scan: their values and the carries stay in registers."""
    words = max(sum(-(-s.dtype.bytes // 4) for s in p.scans) for p in nest.phases)
    return max(1, SCAN_REGISTERS // (vector * max(words, 1)))


def _row_scan(nest: Nest) -> Tile:
    """A row in one chunk of a few lanes while it is short, else in chunks of a block."""
    vector = _row_vector(nest)
    items = _scan_items(nest, vector)
    extent = nest.extent
    fetched = max(sum(e.dtype.bytes for e in b.loads(*p.bodies)) for p in nest.phases)
    most = SCAN_LANES if fetched * vector * items <= FETCH_BYTES else SCAN_LANES // 2
    lanes = min(_power_of_two_at_least(-(-extent // (vector * items))), most)
    items = min(items, -(-extent // (vector * lanes)))
    stages = 2 if extent > lanes * vector * items else 1
    return Tile(max(128, lanes), vector, items, lanes, stages)


def _column_scan(nest: Nest) -> Tile:
    """Vectors along the rows; groups of threads follow each other until the target is filled."""
    extent = nest.extent
    count, inner = nest.points, nest.rows[-1].extent
    vector = vector_width(nest, nest.rows[-1], accesses(nest.phases))
    while vector > 1 and inner // vector < 32:
        vector //= 2
    items = min(_scan_items(nest, vector), extent)
    wanted = nest.arch.units * nest.arch.threads // 2 * vector // max(count, 1)
    lanes = max(1, min(_power_of_two_at_least(wanted), 32, _power_of_two_at_most(extent // items)))
    stages = 2 if extent > lanes * items else 1
    return Tile(max(128, 32 * lanes), vector, items, lanes, stages)


def _column_reduce(nest: Nest) -> Tile:
    """Vectors along the rows; lanes split the cols until the target's threads are used."""
    extent, count = nest.extent, nest.points
    vector = vector_width(nest, nest.inner, accesses(nest.phases))
    resident = nest.arch.units * nest.arch.threads
    while vector > 1 and count // vector * 32 < resident:
        vector //= 2
    items = min(max(16 // vector, 4), extent)
    if _slides(nest):
        # A window at once, in blocks no wider than the axis; the rows alone fill the target.
        fitting = _power_of_two_at_least(nest.rows[-1].extent)
        return Tile(max(32, min(256, fitting)), 1, _window_items(extent))
    # Groups fill the target, and several of them keep more rows in flight than one could.
    filling = _power_of_two_at_most(resident // max(count // vector, 1))
    deep = min(8, _power_of_two_at_most(extent // (8 * items)))
    lanes = max(1, min(max(filling, deep), 32, _power_of_two_at_most(extent // 8)))
    # Larger blocks leave a thread too few registers for two of them to be resident; smaller ones
    # would not read whole lines.
    threads = 256 if lanes < 8 else max(512, lanes * WARP // vector)
    across = _power_of_two_at_least(-(-nest.rows[-1].extent // vector)) if nest.rows else threads
    if across * lanes < threads:  # a narrow axis: threads beyond it take more columns
        lanes = max(lanes, min(threads // across, 32, _power_of_two_at_most(extent // 8)))
    return Tile(min(threads, lanes * max(across, WARP // lanes)), vector, items, lanes)


# A tile that a nest turns out to have no use for leaves it to column_reduce, as do other anchors.
_TILES: dict[str, Callable[[Nest], Tile | None]] = {
    "elementwise": _elementwise,
    "transpose": _transpose,
    "column_stream": _stream_tile,
    "stencil": _stencil_tile,
    "window": _window_tile,
    "row_scan": _row_scan,
    "column_scan": _column_scan,
    "row_reduce": _row_reduce,
}


def choose_tile(nest: Nest, anchor: AnchorName) -> Tile:
    """The tile of a nest on its target."""
    if nest.arch.kind == "cpu":
        return Tile(threads=1)
    return _TILES.get(anchor, _column_reduce)(nest) or _column_reduce(nest)


def row_capacity(arch: Arch) -> int:
    """Bytes of a row that stay on chip between its phases on a GPU: in the shared memory of a
    cluster of blocks, or in a block's registers."""
    return max(arch.cluster * (arch.shared - SHARED_OVERHEAD), 4 * REGISTER_VALUES)


def registers_suffice(extent: int, kept: int, arch: Arch) -> bool:
    """Whether `kept` values of every point of a row stay in registers (CUDA) or cache (CPU)."""
    if arch.kind == "cpu":
        return extent * kept <= 1 << 16
    return extent * kept <= REGISTER_VALUES
