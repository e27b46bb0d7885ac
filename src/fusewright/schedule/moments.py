"""Mean and variance of rows that fit no chip: one read for both, in chunks that stay on chip.

A sum of squared distances from a centre is that from the mean of each chunk, plus what the means of
the chunks are away from the centre: sum (x - c)^2 = sum_k [sum (x - m_k)^2 + n (m_k - c)^2], exact
for any centre c (T. Chan, G. Golub, R. LeVeque, "Updating formulae and a pairwise algorithm for
computing sample variances", 1979). Only the Graph is changed here; kernels come later.
"""

from math import prod

from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.target.arch import Arch

from .tile import row_capacity

# Points of a chunk: a block keeps so many in registers; and the fewest that are worth the chunk's
# own results.
LONGEST_CHUNK = 1 << 14
SHORTEST_CHUNK = 1 << 11

Rows = tuple[g.Node, tuple[int, ...]]


def chunked_rows(graph: g.Graph, arch: Arch) -> frozenset[Rows]:
    """What has its sum and its squared distances folded over the same axes (the innermost among
    them), with rows too long to stay on chip, or too few to fill the target."""
    sums = [n for n in graph.nodes() if isinstance(n, g.Reduce) and n.op == "sum"]
    plain = {(n.x, n.axes_reduced) for n in sums}
    found = [(x, n.axes_reduced) for n in sums if (x := _distant(n)) is not None]
    return frozenset(r for r in found if r in plain and _pays(*r, arch))


def is_chunked(node: g.Node, rows: frozenset[Rows]) -> bool:
    """Whether the node is a sum, or one of squared distances, of one of `rows`."""
    if not isinstance(node, g.Reduce):
        return False
    return any((x, node.axes_reduced) in rows for x in (node.x, _distant(node)) if x is not None)


def _pays(x: g.Node, axes: tuple[int, ...], arch: Arch) -> bool:
    extents = tuple(x.shape[a] for a in axes)
    found = chunk_extents(extents) if axes[-1] == len(x.shape) - 1 else None
    rows, extent = x.size // prod(extents), prod(extents)
    # A CPU's last cache holds the row between its passes.
    if arch.kind == "cpu" or found is None or rows * prod(found[0]) < arch.units:
        return False
    long = extent * x.dtype.bytes > row_capacity(arch)
    return long or (4 * rows < 3 * arch.units and extent > LONGEST_CHUNK)


def _distant(node: g.Reduce) -> g.Node | None:
    """x, where the node sums the squares of `x - centre`, the centre the same along the row."""
    match node.x:
        case g.Binary(op="mul", a=g.Binary(op="sub") as away, b=other) if other == away:
            fixed = isinstance(away.b, g.View) and _is_fixed(away.b, node.axes_reduced)
            return away.a if fixed else None
        case _:
            return None


def _is_fixed(centre: g.View, axes: tuple[int, ...]) -> bool:
    along = {centre.axes[a] for a in axes}
    used = ix.variables(*centre.index, *(c.x for c in centre.valid))
    return along.isdisjoint(used)


def chunk_extents(extents: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Axes in row-major order as (axes of chunks, axes within a chunk): the longest chunks that are
    whole slices. None where these would be short."""
    for k, n in enumerate(extents):
        inner = prod(extents[k + 1 :])
        if inner <= LONGEST_CHUNK:
            m = max(d for d in range(1, LONGEST_CHUNK // inner + 1) if n % d == 0)
            within = (m, *extents[k + 1 :])
            return ((*extents[:k], n // m), within) if prod(within) >= SHORTEST_CHUNK else None
    return None


def in_chunks(node: g.Reduce) -> g.Node:
    """The sum, or the sum of squared distances, of `chunked_rows` by way of chunks."""
    axes, away = node.axes_reduced, node.x
    x = _distant(node) or away
    kept = tuple(k for k in range(len(x.shape)) if k not in axes)
    found = chunk_extents(tuple(x.shape[a] for a in axes))
    assert found is not None
    outer, within = found
    shape = (*(x.shape[k] for k in kept), *outer, *within)
    parts = g.view(x, shape, _places(x, kept, axes, shape, len(outer)))
    folded = range(len(kept) + len(outer), len(shape))
    last = range(len(kept), len(kept) + len(outer))
    sums = g.reduce("sum", parts, folded)
    if x is away:
        return g.reduce("sum", sums, last)
    assert isinstance(away, g.Binary) and isinstance(away.a, g.Binary)
    count = prod(within)
    means = g.binary("mul", sums, g.const(1 / count, x.dtype, sums.shape))
    near = g.binary("sub", parts, g.insert_expanded(means, folded, shape))
    spread = g.reduce("sum", g.binary("mul", near, near), folded)
    start = [ix.const(0)] * len(x.shape)
    for out, k in zip(ix.axes(sums.shape), kept, strict=False):
        start[k] = out
    far = g.binary("sub", means, g.view(away.a.b, sums.shape, start))
    weight = g.const(count, x.dtype, sums.shape)
    between = g.binary("mul", g.binary("mul", far, far), weight)
    return g.reduce("sum", g.binary("add", spread, between), last)


def _places(
    x: g.Node, kept: tuple[int, ...], axes: tuple[int, ...], shape: g.Shape, outer: int
) -> tuple[ix.Index, ...]:
    """x's axes over those of `shape`: kept axes, `outer` axes of chunks, axes within a chunk."""
    out = ix.axes(shape)
    place: dict[int, ix.Index] = dict(zip(kept, out, strict=False))
    chunk = out[len(kept) : len(kept) + outer]
    first, *rest = out[len(kept) + outer :]
    cut = axes[outer - 1]
    place |= dict(zip(axes, chunk, strict=False))
    place[cut] = chunk[-1] * shape[len(kept) + outer] + first
    place |= dict(zip(axes[outer:], rest, strict=True))
    return tuple(place[k] for k in range(len(x.shape)))
