"""What is decided on the Graph itself before fusion: which contractions become loops, and splits.

Empty reductions become constants, contractions that reuse nothing become a reduction of a product
(a matrix-vector product runs at the memory rate, a library gemm does not), others get the layout of
a call that a library has, and a reduction with too few rows to fill the target is split in two, a
scan in three (`split_scan`). No kernels are formed here.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from math import prod

from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir import offsets
from fusewright.ir.conv_product import ConvShape, conv_of
from fusewright.ir.dtypes import compute_type
from fusewright.ir.graph import Scalar
from fusewright.ir.matmul import roles
from fusewright.ir.scalar import identity
from fusewright.ir.windowed import as_library_form
from fusewright.options import Options
from fusewright.target.arch import Arch
from fusewright.target.cost import is_pointwise

from .convolutions import as_product
from .gate import product_below
from .layout import Users
from .moments import chunked_rows, in_chunks, is_chunked
from .split_scan import split_scan
from .tile import LARGEST_STENCIL, LARGEST_STRIDE

# A contraction whose points number at most this many times its result is memory-bound; one whose
# points are no more than an operand's elements, too.
REUSE_LIMIT = 2
# Rows beside which a GPU reads a matrix once, each row with a sum of its own; bytes of such rows
# that its first cache holds beside the matrix; bytes of a matrix that is worth it.
FEW_ROWS, CACHED_ROWS, LARGE_MATRIX = 4, 64 << 10, 16 << 20
# Results, and multiply-adds, up to which a GPU's library takes longer than a reduction if the sum
# is this long: few tiles, each of which walks all of it (16 x 128 over 576: 50 us on an H100).
SMALL_RESULT, SMALL_PRODUCT, LONG_SUM = 1 << 12, 1 << 21, 256
# Multiply-adds that take a CPU no longer than a library call.
TINY_PRODUCT = 1 << 13
# Below this many elements one kernel is faster than two, however few blocks it has.
SPLIT_MINIMUM = 1 << 16
# Elements of a row that one block still reads efficiently after a split.
CHUNK_MINIMUM = 2048
# Elements of a row that is worth a loop of its own on a CPU.
SHORTEST_ROW = 32
# Columns that a chunk of a scan has at least, and rows of a scan that keep a CPU busy.
SCAN_CHUNK_MINIMUM, SCAN_TASKS = 512, 8
# Threads that one column of a column reduction can be divided among.
COLUMN_LANES = 32


def prepare(graph: g.Graph, arch: Arch, options: Options) -> g.Graph:
    """The graph with empty values, low-reuse contractions and short reductions rewritten."""

    users = g.users(graph.roots)
    long_rows, factors = chunked_rows(graph, arch), _factors(graph, users)
    spread = _spread(users) if arch.convs is not None else ()

    def change(given: g.Node, operands: tuple[g.Node, ...]) -> g.Node:
        node = given.with_operands(operands) if operands else given
        if isinstance(node, g.Reduce | g.Contract) and (folded := _empty(node)) is not None:
            return folded
        if isinstance(node, g.Contract) and (apart := rows_apart(node, arch)) is not None:
            return apart
        if isinstance(node, g.Contract) and is_sum(node, arch):
            return _as_sum(node, arch)
        if isinstance(node, g.Contract) and (form := as_library_form(node)) is not None:
            return _with_products(form, arch, options)
        match node:
            case g.Reduce(op="sum") if is_chunked(given, long_rows):
                return in_chunks(node)
            case g.Reduce():
                if given in factors:
                    return _in_memory_order(node, arch)
                return split(node, arch, apart=given in spread)
            case g.ArgReduce():
                return split_arg(node, arch)
            case g.Scan():
                chunks = scan_chunk_count(node, arch)
                return split_scan(node, chunks) if chunks > 1 else node
            case _:
                return node

    return g.rebuild(graph, change)


def _with_products(form: g.Node, arch: Arch, options: Options) -> g.Node:
    """A contraction, or a view of one, with a convolution that pays as a product of ours."""
    if isinstance(form, g.View):
        return form.with_operands((_with_products(form.x, arch, options),))

    def fold(node: g.Node) -> g.Node:
        return split(node, arch) if isinstance(node, g.Reduce) else node

    return as_product(form, arch, options, fold) or form


def _empty(node: g.Reduce | g.Contract) -> g.Node | None:
    if isinstance(node, g.Contract):
        return None if prod(node.reduced) else g.const(0, node.dtype, node.shape)
    return None if node.x.size else g.const(identity(node.op, node.dtype), node.dtype, node.shape)


def is_sum(c: g.Contract, arch: Arch) -> bool:
    """Whether a loop over the sum is better than a library's product."""
    return is_memory_bound(c) or is_small(c, arch) or is_depthwise(c, arch)


def is_memory_bound(c: g.Contract) -> bool:
    """Whether no operand element is used more than a few times."""
    points = c.size * prod(c.reduced)
    return points <= max(REUSE_LIMIT * c.size, c.a.size, c.b.size)


def rows_apart(c: g.Contract, arch: Arch) -> g.Node | None:
    """A product of a large matrix with few rows as sums side by side, which one kernel computes
    while it reads the matrix once; None where a matrix product is as good."""
    found = roles(c)
    if arch.kind != "cuda" or found is None or found.batch:
        return None
    rows, x = min(((found.m, c.a), (found.n, c.b)), key=lambda p: prod(v.hi + 1 for v in p[0]))
    count = prod(v.hi + 1 for v in rows)
    matrix, index = (c.b, c.b_index) if x is c.a else (c.a, c.a_index)
    if len(rows) != 1 or not 2 <= count <= FEW_ROWS or matrix.nbytes < LARGE_MATRIX:
        return None
    # Along the sum, every row of the matrix takes all of x; across it, all take the same part.
    if index[-1] in c.reduced_axes and x.nbytes > CACHED_ROWS:
        return None
    (row,) = rows
    axis = c.axes.index(row)
    return g.concat([_as_sum(_at(c, axis, at), arch) for at in range(count)], axis)


def _as_sum(c: g.Contract, arch: Arch) -> g.Node:
    """The contraction as a reduction, in two where one has too few rows."""
    node = as_reduction(c)
    if isinstance(node, g.Cast) and isinstance(node.x, g.Reduce):
        return g.cast(split(node.x, arch), node.dtype)
    return split(node, arch) if isinstance(node, g.Reduce) else node


def _at(c: g.Contract, axis: int, at: int) -> g.Contract:
    """The contraction at one place of an axis of its result, which stays with extent 1."""
    mapping = {c.axes[axis]: ix.const(at)}
    a, b = (tuple(ix.substitute(e, mapping) for e in i) for i in (c.a_index, c.b_index))
    shape = (*c.shape[:axis], 1, *c.shape[axis + 1 :])
    return replace(c, shape=shape, a_index=a, b_index=b)


def is_small(c: g.Contract, arch: Arch) -> bool:
    """Whether a GPU's library would leave most multiprocessors idle, the others in a long sum; or
    calling a CPU's takes longer than a loop."""
    depth = prod(c.reduced)
    if arch.kind == "cpu":
        return c.size * depth <= TINY_PRODUCT
    few = c.size <= SMALL_RESULT and c.size * depth <= SMALL_PRODUCT
    return few and depth >= LONG_SUM


def is_depthwise(c: g.Contract, arch: Arch) -> bool:
    """Whether every result is a few weighted neighbours of one channel: with a cache for what they
    share, memory bounds that. (A CPU's library has good kernels for it; a GPU's take 3.6 times as
    long: 2.56 ms for 16 x 64 x 512 x 512 and 3 x 3 taps on an H100.)"""
    if arch.kind != "cuda" or prod(c.reduced) > LARGEST_STENCIL:
        return False
    known = ix.variables(*c.a_index)
    taps = [r for r in c.reduced_axes if isinstance(r, ix.Var)]
    return all(v in known for v in c.axes if isinstance(v, ix.Var)) and all(
        any(_slides(e, tap, c.axes) for e in c.a_index) for tap in taps
    )


def _slides(e: ix.Index, tap: ix.Index, axes: tuple[ix.Index, ...]) -> bool:
    """Whether a place is `stride * axis + dilation * tap`, both factors small."""
    steps = [ix.coefficient(e, v) for v in (tap, *(a for a in axes if a in ix.variables(e)))]
    return len(steps) == 2 and all(s is not None and 0 < s <= LARGEST_STRIDE for s in steps)


def as_reduction(c: g.Contract) -> g.Node:
    """The contraction as a sum of products, accumulated in the compute type."""
    domain = (*c.shape, *c.reduced)
    rename = {
        r: ix.axis(len(c.shape) + k, n)
        for k, (r, n) in enumerate(zip(c.reduced_axes, c.reduced, strict=True))
    }
    wide = compute_type(c.dtype)
    sides = [
        g.cast(
            g.view(
                x,
                domain,
                tuple(ix.substitute(e, rename) for e in index),
                ix.substitute_conds(valid, rename),
            ),
            wide,
        )
        for x, index, valid in ((c.a, c.a_index, c.a_valid), (c.b, c.b_index, c.b_valid))
    ]
    product = g.binary("mul", *sides)
    axes = range(len(c.shape), len(domain))
    return g.cast(g.reduce("sum", product, axes), c.dtype)


def _factors(graph: g.Graph, users: Users) -> frozenset[g.Node]:
    """The reductions that nothing but products read."""
    return frozenset(
        n
        for n, readers in users.items()
        if isinstance(n, g.Reduce) and n not in graph.roots
        if readers and all(isinstance(r, g.Contract) for r in readers)
    )


def _spread(users: Users) -> frozenset[g.Node]:
    """The sums that are taken back to every element they come from: means of a norm, which a
    kernel that has whole rows at hand computes with what follows."""
    return frozenset(
        n
        for n in users
        if isinstance(n, g.Reduce) and n.op == "sum" and _reaches(n, n.x.size, users)
    )


def _reaches(n: g.Node, size: int, users: Users) -> bool:
    """Whether pointwise work on `n` has `size` elements somewhere."""
    stack, seen = list(users[n]), set()
    while stack:
        x = stack.pop()
        if x in seen or not (is_pointwise(x) or isinstance(x, g.View)):
            continue
        if x.size >= size:
            return True
        seen.add(x)
        stack.extend(users[x])
    return False


def _in_memory_order(node: g.Reduce, arch: Arch) -> g.Node:
    """The reduction with its axes in the order in which its largest input lies in memory, so that
    it is read and written alike; a product takes its operands in any order."""
    kept = [k for k in range(len(node.x.shape)) if k not in node.axes_reduced]
    steps = _steps(node.x)
    order = sorted(kept, key=lambda k: -steps[k]) if steps is not None else kept
    if order == kept:
        return split(node, arch)
    turned = g.permute(node.x, (*order, *node.axes_reduced))
    inner = g.reduce(node.op, turned, range(len(order), len(turned.shape)))
    assert isinstance(inner, g.Reduce)
    return g.permute(split(inner, arch), [order.index(k) for k in kept])


def _steps(x: g.Node) -> tuple[int, ...] | None:
    """How far apart neighbours along each axis lie in the largest input that `x` reads."""
    views = [
        v
        for v in g.topological((x,))
        if isinstance(v, g.View) and isinstance(v.x, g.Input) and v.shape == x.shape
    ]
    if not views:
        return None
    return _steps_of(max(views, key=lambda v: v.x.nbytes))


def _steps_of(view: g.View) -> tuple[int, ...] | None:
    """How far apart neighbours along each axis of a view lie in its source."""
    place = offsets.flatten(view.index, offsets.row_major(view.x.shape))
    steps = [ix.coefficient(place, v) if isinstance(v, ix.Var) else 0 for v in view.axes]
    return None if any(s is None for s in steps) else tuple(s for s in steps if s is not None)


def split(node: g.Reduce, arch: Arch, *, apart: bool = False) -> g.Node:
    """The reduction as two (chunks, then the chunks' results) where one has too few rows; `apart`
    from a convolution that could gather it."""
    if (c := product_below(node.x, arch)) is not None:
        conv = conv_of(c)
        if conv is None or not apart:
            return _along_product(node, conv, arch)
    if (rows := _rows_folded(node)) and chunk_count(node.x, rows, arch) == 1:
        return _after_rows(node, rows, arch)
    chunks = chunk_count(node.x, node.axes_reduced, arch)
    if chunks == 1:
        return node
    if arch.kind == "cpu" and (rows := _whole_rows(node, arch)):
        return _after_rows(node, rows, arch)
    parts = chunked(node.x, node.axes_reduced, chunks, identity(node.op, node.dtype))
    last = len(parts.shape) - 1
    return g.reduce(node.op, g.reduce(node.op, parts, (last,)), (last - 1,))


def split_arg(node: g.ArgReduce, arch: Arch) -> g.Node:
    """The position of an extreme as that of the best chunk, then of the best in that chunk.

    Of ties the first chunk and the first element win; both stages let NaN go first.
    """
    chunks = chunk_count(node.x, (node.axis,), arch)
    if chunks == 1 or product_below(node.x, arch) is not None:
        return node
    parts = chunked(node.x, (node.axis,), chunks, identity(node.op, node.x.dtype))
    last = len(parts.shape) - 1
    best = g.reduce(node.op.removeprefix("arg"), parts, (last,))
    chunk = g.arg_reduce(node.op, best, last - 1)
    inside = g.arg_reduce(node.op, parts, last)
    index = (*ix.axes(node.shape), ix.const(0))
    inside = g.gather(inside, chunk, axis=last - 1, index=index)
    start = g.binary("mul", chunk, g.const(parts.shape[last], g.INT64, chunk.shape))
    return g.binary("add", start, inside)


def scan_chunk_count(node: g.Scan, arch: Arch) -> int:
    """Into how many chunks a scan is cut: none unless it leaves half of the target idle."""
    extent = node.shape[node.axis]
    rows = max(node.size // extent, 1)
    wanted, have = (arch.units if arch.kind == "cuda" else SCAN_TASKS), rows
    if node.axis != len(node.shape) - 1:
        have = max(rows // COLUMN_LANES, 1)
    if node.size < SPLIT_MINIMUM or 2 * have >= wanted:
        return 1
    chunks = min(4 * wanted // have, extent // SCAN_CHUNK_MINIMUM)
    return _nearby_divisor(extent, chunks) if chunks > 1 else 1


def chunked(x: g.Node, axes: tuple[int, ...], chunks: int, fill: Scalar) -> g.Node:
    """`x` with the points of `axes` as two last axes: `chunks`, and points of a chunk.

    What is missing in the last chunk is `fill`.
    """
    extents = tuple(x.shape[a] for a in axes)
    kept = [k for k in range(len(x.shape)) if k not in axes]
    total, length = prod(extents), -(-prod(extents) // chunks)
    shape = (*(x.shape[k] for k in kept), chunks, length)
    out = ix.axes(shape)
    flat = out[-2] * length + out[-1]
    position = dict(zip(axes, offsets.unflatten(flat, extents), strict=True))
    position |= dict(zip(kept, out[:-2], strict=True))
    valid = ix.conjunction((ix.less(flat, total),))
    index = tuple(position[k] for k in range(len(x.shape)))
    return g.view(x, shape, index, valid, fill)


def _along_product(node: g.Reduce, conv: ConvShape | None, arch: Arch) -> g.Node:
    """A reduction of a product whole, since the product gathers it; of a matrix, or of a
    convolution's images, its rows first."""
    shape, pixels = node.x.shape, 1 if conv is None else conv.pixels
    long = [a for a in node.axes_reduced if shape[a] > 1]
    row = [a for a in long if prod(shape[a:]) <= pixels] if pixels > 1 else long[-1:]
    if len(long) < 2 or not row or len(row) == len(long):
        return node
    if prod(shape[row[0] :]) != (pixels if pixels > 1 else shape[row[0]]):
        return node
    return _after_rows(node, tuple(a for a in node.axes_reduced if a >= row[0]), arch)


def _after_rows(node: g.Reduce, rows: tuple[int, ...], arch: Arch) -> g.Node:
    """The reduction as one over the axes `rows`, then one of its results."""
    rest = [a for a in node.axes_reduced if a not in rows]
    outer = g.reduce(node.op, g.reduce(node.op, node.x, rows), rest)
    return split(outer, arch) if isinstance(outer, g.Reduce) else outer


def _rows_folded(node: g.Reduce) -> tuple[int, ...]:
    """The trailing axes of which what is reduced needs folds, if they are some of those reduced:
    folded first, they share the kernel of those folds, which reads each row once."""
    stack, seen = [node.x], set()
    while stack:
        n = stack.pop()
        if n in seen:
            continue
        seen.add(n)
        if is_pointwise(n) or isinstance(n, g.View):
            stack.extend(n.operands)
        if not isinstance(n, g.Reduce) or n.x.shape != node.x.shape:
            continue
        trailing = tuple(range(n.axes_reduced[0], len(n.x.shape)))
        if n.axes_reduced == trailing and {*trailing} < {*node.axes_reduced}:
            return trailing
    return ()


def _whole_rows(node: g.Reduce, arch: Arch) -> tuple[int, ...]:
    """The trailing ones of the reduced axes, if the others are enough for the target and chunks of
    all would not be contiguous: vectors have no division that finds the place of each point."""
    axes, shape = node.axes_reduced, node.x.shape
    if all(_is_flat(leaf, axes) for leaf in _leaves(node.x)):
        return ()
    for k in range(1, len(axes)):
        if 4 * node.size * prod(shape[a] for a in axes[:k]) >= arch.units:
            return axes[k:] if prod(shape[a] for a in axes[k:]) >= SHORTEST_ROW else ()
    return ()


def _leaves(x: g.Node) -> Iterator[g.Node]:
    """What a pointwise value is computed from, each once."""
    stack, seen = [x], set()
    while stack:
        n = stack.pop()
        if n in seen:
            continue
        seen.add(n)
        if is_pointwise(n):
            stack.extend(n.operands)
        elif not isinstance(n, g.Const):
            yield n


def _is_flat(x: g.Node, axes: tuple[int, ...]) -> bool:
    """Whether `x` goes on along each of `axes` where it ends along the next of them."""
    steps = _steps_of(x) if isinstance(x, g.View) else offsets.row_major(x.shape)
    return steps is not None and all(steps[a] == steps[b] * x.shape[b] for a, b in pairwise(axes))


def chunk_count(x: g.Node, axes: tuple[int, ...], arch: Arch) -> int:
    """Into how many chunks a fold over `axes` is cut so that the target is filled (1: not)."""
    extent = prod(x.shape[a] for a in axes)
    rows = max(x.size // max(extent, 1), 1)
    if x.size < SPLIT_MINIMUM:
        return 1
    walks_rows = axes[-1] != len(x.shape) - 1
    if walks_rows and arch.kind == "cuda":
        wanted, at_least = arch.units * arch.threads // 2, 2 * COLUMN_LANES
        have = rows * COLUMN_LANES
    else:
        wanted, at_least, have = arch.units, CHUNK_MINIMUM, rows
    # Three quarters of the target busy is better than a second kernel.
    if 4 * have >= 3 * wanted:
        return 1
    # Four waves of chunks even out blocks that start late.
    target = -(-(wanted if walks_rows else 4 * wanted) // have)
    chunks = min(target, extent // at_least)
    return _nearby_divisor(extent, chunks) if chunks > 1 else 1


def _nearby_divisor(extent: int, chunks: int) -> int:
    """A divisor of `extent` within a factor of two of `chunks`, else `chunks` itself."""
    for candidate in range(chunks, min(2 * chunks, extent) + 1):
        if extent % candidate == 0:
            return candidate
    return chunks
