"""Lowerings of reads at computed positions: embedding, gather, index_select, advanced indexing.

Several index tensors become one: the axes they index are merged and the positions linearised.
Negative positions are wrapped where torch allows them. Writes (scatter, index_put) stay calls,
except a masked fill.
"""

from collections.abc import Callable, Mapping, Sequence
from math import prod

from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir import offsets
from fusewright.ir.dtypes import BOOL, INT64
from fusewright.ir.graph import Node

from .aten_reduce import mean, total
from .operands import (
    NotLowered,
    add,
    as_node,
    broadcast_shapes,
    choose,
    convert,
    eq,
    lt,
    mul,
)


def _positions(where: Node, extent: int, wraps: bool) -> Node:
    """int64 positions; with `wraps` negative ones count from the end."""
    if where.dtype.kind != "int":
        raise NotLowered(f"positions of type {where.dtype}")
    where = convert(where, INT64)
    return choose(lt(where, 0), add(where, extent), where) if wraps else where


def take_rows(x: Node, where: Node, axis: int) -> Node:
    """`axis` of x replaced by the axes of `where`: out[.., w.., ..] = x[.., where[w], ..]."""
    lead, tail = x.shape[:axis], x.shape[axis + 1 :]
    shape = (*lead, *where.shape, *tail)
    if not x.shape[axis]:
        raise NotLowered("positions in an empty axis")
    axes = ix.axes(shape)
    inner = axes[len(lead) : len(lead) + len(where.shape)]
    positions = g.view(where, shape, inner)
    index = (*axes[: len(lead)], ix.const(0), *axes[len(lead) + len(where.shape) :])
    return g.gather(x, positions, axis=axis, index=index)


def embedding(
    weight: Node,
    where: Node,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Node:
    """Rows of `weight`; padding_idx matters to gradients only."""
    return take_rows(weight, _positions(where, weight.shape[0], False), 0)


def embedding_bag(
    weight: Node,
    where: Node,
    starts: Node,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Node | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> tuple[Node | None, ...]:
    """Sums (mode 0) or means (1) of rows of `weight` for bags of one size, and nothing else of it.

    Maxima ignore NaN, and bags of many sizes have no shape: both stay calls, and so do means
    without the padding.
    """
    left_out = -1 if padding_idx is None else padding_idx
    size = where.size // max(starts.size, 1)
    regular = starts.size * size == where.size > 0 and _steps_by(starts, size)
    if not regular or include_last_offset or mode > 1 or (left_out >= 0 and mode):
        raise NotLowered("bags of several sizes, their maxima, or means of a part")
    bags = g.reshape(where, (starts.size, size))
    rows = take_rows(weight, _positions(bags, weight.shape[0], False), 0)
    if per_sample_weights is not None:
        factors = g.reshape(per_sample_weights, (starts.size, size))
        rows = mul(rows, g.insert_expanded(factors, (2,), rows.shape))
    if left_out >= 0:
        skipped = g.insert_expanded(eq(bags, left_out), (2,), rows.shape)
        rows = choose(skipped, 0.0, rows)
    return ((mean if mode else total)(rows, 1), None, None, None)


def _steps_by(starts: Node, size: int) -> bool:
    """Whether `starts` is known to be 0, size, 2 * size, ..."""
    if starts.size == 1 and isinstance(starts, g.Const):
        return starts.value == 0
    return isinstance(starts, g.Iota) and starts.value == starts.axes[0] * size


def index_select(x: Node, dim: int, where: Node) -> Node:
    if not x.shape:
        return x
    axis = dim % len(x.shape)
    flat = g.reshape(where, (where.size,))
    return take_rows(x, _positions(flat, x.shape[axis], False), axis)


def gather(x: Node, dim: int, where: Node, *, sparse_grad: bool = False) -> Node:
    """`out[i] = x[i with where[i] at dim]`; extents of `where` may be smaller than x's."""
    if not x.shape or not where.shape:
        raise NotLowered("gather of a scalar")
    axis = dim % len(x.shape)
    if not x.shape[axis]:
        raise NotLowered("positions in an empty axis")
    index = (*where.axes[:axis], ix.const(0), *where.axes[axis + 1 :])
    return g.gather(x, _positions(where, x.shape[axis], False), axis=axis, index=index)


def take(x: Node, where: Node) -> Node:
    """Positions in the flattened x, in the shape of `where`."""
    if not x.size:
        raise NotLowered("positions in an empty tensor")
    return take_rows(g.reshape(x, (x.size,)), _positions(where, x.size, True), 0)


def index(x: Node, where: Sequence[Node | None]) -> Node:
    """`x[a, :, b]` with integer tensors; None stands for a whole axis.

    The result has the index tensors' common axes where the first indexed axis was if those are
    adjacent, else first (NumPy's rule).
    """
    indexed = [k for k, w in enumerate(where) if w is not None]
    given = [w for w in where if w is not None]
    if any(w.dtype == BOOL or w.dtype.kind != "int" for w in given):
        raise NotLowered("boolean masks")
    if not given or any(not x.shape[k] for k in indexed):
        raise NotLowered("positions in an empty axis")
    adjacent = indexed == list(range(indexed[0], indexed[-1] + 1))
    first = indexed[0] if adjacent else 0
    others = [k for k in range(len(x.shape)) if k not in indexed]
    moved = g.permute(x, (*others[:first], *indexed, *others[first:]))
    extents = [x.shape[k] for k in indexed]
    return _read_merged(moved, first, extents, given)


def _read_merged(x: Node, first: int, extents: Sequence[int], given: Sequence[Node]) -> Node:
    """x with the axes of `extents`, from `first` on, merged and read at linearised positions."""
    merged = (*x.shape[:first], prod(extents), *x.shape[first + len(extents) :])
    common = broadcast_shapes(*(w.shape for w in given))
    offset: Node | None = None
    for w, n, step in zip(given, extents, offsets.row_major(tuple(extents)), strict=True):
        at = as_node(_positions(w, n, True), INT64, common)
        term = at if step == 1 else mul(at, step)
        offset = term if offset is None else add(offset, term)
    if offset is None:
        raise NotLowered("no positions")
    return take_rows(g.reshape(x, merged), offset, first)


def select_at(x: Node, axis: int, position: Node) -> Node:
    """`x.select(axis, position)` with a position that only a run knows."""
    return take_rows(x, _positions(position, x.shape[axis], True), axis)


def select_scatter_at(x: Node, source: Node, axis: int, position: Node) -> Node:
    """x with `source` in the place of `select_at`."""
    at = g.expand(_positions(position, x.shape[axis], True), x.shape)
    new = g.expand(g.keep_axes(convert(source, x.dtype), (axis,)), x.shape)
    return choose(eq(g.iota(x.axes[axis], x.shape), at), new, x)


def index_put(
    x: Node, where: Sequence[Node | None], values: Node, accumulate: bool = False
) -> Node:
    """Only `x[mask] = scalar` is pointwise; other writes stay calls."""
    mask = where[0] if len(where) == 1 else None
    if mask is None or mask.dtype != BOOL or accumulate or values.size != 1:
        raise NotLowered("a scattered write")
    lifted = g.reshape(mask, (*mask.shape, *(1,) * (len(x.shape) - len(mask.shape))))
    new = as_node(g.reshape(values, ()), x.dtype, x.shape)
    return g.where(as_node(lifted, BOOL, x.shape), new, x)


TABLE: Mapping[str, Callable[..., Node | tuple[Node | None, ...]]] = {
    "aten.embedding.default": embedding,
    "aten.embedding_bag.default": embedding_bag,
    "aten.embedding_bag.padding_idx": embedding_bag,
    "aten.index_select.default": index_select,
    "aten.gather.default": gather,
    "aten.take.default": take,
    "aten.index.Tensor": index,
    "aten._unsafe_index.Tensor": index,
    "aten.index_put.default": index_put,
    "aten._unsafe_index_put.default": index_put,
}
