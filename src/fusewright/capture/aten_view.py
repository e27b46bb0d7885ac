"""Lowerings of layout changes: every one is a `View` with index expressions, or a `Concat`.

Padding is in `aten_pad`, reads at computed positions in `aten_gather`.
"""

from collections.abc import Callable, Mapping, Sequence
from math import prod

from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir import offsets
from fusewright.ir.dtypes import BOOL, DType
from fusewright.ir.graph import Node, Shape
from fusewright.ir.index import Conds, Index

from . import aten_gather
from .operands import (
    NotLowered,
    Number,
    as_node,
    axis_of,
    broadcast_shapes,
    convert,
    promote_types,
)

Many = tuple[Node | None, ...]
# CUDA passes a kernel 4 KB of arguments, 512 addresses: two such lists may meet in one kernel.
MOST_PARTS = 240


def replace_axis(x: Node, axis: int, extent: int, position: Callable[[Index], Index]) -> Node:
    """x with `axis` of another extent, output coordinate i reading `position(i)`."""
    shape = (*x.shape[:axis], extent, *x.shape[axis + 1 :])
    axes = ix.axes(shape)
    return g.view(x, shape, (*axes[:axis], position(axes[axis]), *axes[axis + 1 :]))


def mask_where(shape: Shape, conds: Conds) -> Node:
    """A bool tensor of `shape`, true where the conditions hold."""
    return g.view(g.const(True, BOOL), shape, (), conds, False)


# ----------------------------------------------------------------------- shape and order of axes


def reshape(x: Node, shape: Sequence[int]) -> Node:
    """`view` and `reshape`; one extent may be -1."""
    known = prod(n for n in shape if n != -1)
    return g.reshape(x, tuple(x.size // known if n == -1 else n for n in shape))


def flatten(x: Node, start_dim: int = 0, end_dim: int = -1) -> Node:
    rank = len(x.shape)
    if not rank:
        return g.reshape(x, (1,))
    first, last = start_dim % rank, end_dim % rank
    middle = prod(x.shape[first : last + 1])
    return g.reshape(x, (*x.shape[:first], middle, *x.shape[last + 1 :]))


def unflatten(x: Node, dim: int, sizes: Sequence[int]) -> Node:
    axis = dim % len(x.shape)
    known = prod(n for n in sizes if n != -1)
    inner = tuple(x.shape[axis] // known if n == -1 else n for n in sizes)
    return g.reshape(x, (*x.shape[:axis], *inner, *x.shape[axis + 1 :]))


def permute(x: Node, dims: Sequence[int]) -> Node:
    return g.permute(x, (d % len(x.shape) for d in dims))


def transpose(x: Node, a: int, b: int) -> Node:
    rank = len(x.shape)
    if not rank:
        return x
    order = list(range(rank))
    order[a % rank], order[b % rank] = order[b % rank], order[a % rank]
    return g.permute(x, order)


def t(x: Node) -> Node:
    return transpose(x, 0, 1) if len(x.shape) == 2 else x


def unsqueeze(x: Node, dim: int) -> Node:
    return g.keep_axes(x, (dim % (len(x.shape) + 1),))


def squeeze(x: Node, dims: int | Sequence[int] | None = None) -> Node:
    rank = len(x.shape)
    given = range(rank) if dims is None else (dims,) if isinstance(dims, int) else dims
    gone = {d % rank for d in given if rank and x.shape[d % rank] == 1}
    return g.reshape(x, tuple(n for k, n in enumerate(x.shape) if k not in gone))


def expand(x: Node, shape: Sequence[int], *, implicit: bool = False) -> Node:
    """Broadcast; -1 keeps an extent."""
    lead = len(shape) - len(x.shape)
    return g.expand(x, tuple(x.shape[k - lead] if n == -1 else n for k, n in enumerate(shape)))


def expand_as(x: Node, other: Node) -> Node:
    return g.expand(x, other.shape)


def view_dtype(x: Node, dtype: DType) -> Node:
    """`view` as another dtype reinterprets bits, which the IR does not."""
    if dtype != x.dtype:
        raise NotLowered("bits reinterpreted as another dtype")
    return x


def as_strided(
    x: Node, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None
) -> Node:
    """Positions in the storage of x, which the caller knows to be row-major."""
    shape = tuple(size)
    offset = offsets.flatten(ix.axes(shape), stride) + (storage_offset or 0)
    return g.view(x, shape, offsets.unflatten(offset, x.shape))


# ------------------------------------------------------------------------------------- selections


def slice_(
    x: Node, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Node:
    """`x[start:end:step]` along `dim`, bounds clamped as Python does."""
    axis = dim % len(x.shape)
    first, extent = _slice_range(x.shape[axis], start, end, step)
    return replace_axis(x, axis, extent, lambda i: i * step + first)


def _slice_range(n: int, start: int | None, end: int | None, step: int) -> tuple[int, int]:
    """(first position, number of positions)."""
    first, stop, _ = slice(start, end, step).indices(n)
    return first, max(0, -(-(stop - first) // step))


def select(x: Node, dim: int, position: int | Number) -> Node:
    """One position of an axis, which vanishes."""
    axis = dim % len(x.shape)
    if isinstance(position, Number):
        return aten_gather.select_at(x, axis, position.node)
    at = position % x.shape[axis]
    shape = (*x.shape[:axis], *x.shape[axis + 1 :])
    axes = ix.axes(shape)
    return g.view(x, shape, (*axes[:axis], ix.const(at), *axes[axis:]))


def narrow(x: Node, dim: int, start: int, length: int) -> Node:
    axis = dim % len(x.shape)
    first = start % x.shape[axis] if start < 0 else start
    return slice_(x, axis, first, first + length)


def split(x: Node, size: int, dim: int = 0) -> Many:
    axis = dim % len(x.shape)
    n = x.shape[axis]
    count = max(1, -(-n // size)) if size else 1
    return tuple(slice_(x, axis, k * size, min((k + 1) * size, n)) for k in range(count))


def split_with_sizes(x: Node, sizes: Sequence[int], dim: int = 0) -> Many:
    axis, at, out = dim % len(x.shape), 0, []
    for size in sizes:
        out.append(slice_(x, axis, at, at + size))
        at += size
    return tuple(out)


def chunk(x: Node, chunks: int, dim: int = 0) -> Many:
    return split(x, -(-x.shape[dim % len(x.shape)] // chunks), dim)


def unbind(x: Node, dim: int = 0) -> Many:
    return tuple(select(x, dim, k) for k in range(x.shape[dim % len(x.shape)]))


def flip(x: Node, dims: Sequence[int]) -> Node:
    for axis in sorted({axis_of(len(x.shape), d) for d in dims}) if x.shape else ():
        last = x.shape[axis] - 1
        x = replace_axis(x, axis, x.shape[axis], lambda i, last=last: last - i)
    return x


def roll(x: Node, shifts: int | Sequence[int], dims: int | Sequence[int] = ()) -> Node:
    """Cyclic shift; without `dims` of the flattened tensor."""
    by = (shifts,) if isinstance(shifts, int) else tuple(shifts)
    along = (dims,) if isinstance(dims, int) else tuple(dims)
    if not x.size:
        return x
    if not along:
        return g.reshape(_roll_axis(g.reshape(x, (x.size,)), by[0], 0), x.shape)
    for shift, dim in zip(by, along, strict=True):
        x = _roll_axis(x, shift, dim % len(x.shape))
    return x


def _roll_axis(x: Node, shift: int, axis: int) -> Node:
    n = x.shape[axis]
    return replace_axis(x, axis, n, lambda i: (i + (-shift) % n) % n)


def unfold(x: Node, dim: int, size: int, step: int) -> Node:
    """Sliding windows along `dim`; the position inside the window is a new last axis."""
    if not x.shape:
        return replace_axis(g.reshape(x, (1,)), 0, size, lambda i: i)
    axis = dim % len(x.shape)
    count = (x.shape[axis] - size) // step + 1
    shape = (*x.shape[:axis], count, *x.shape[axis + 1 :], size)
    axes = ix.axes(shape)
    at = axes[axis] * step + axes[-1]
    return g.view(x, shape, (*axes[:axis], at, *axes[axis + 1 : -1]))


def diagonal(x: Node, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Node:
    """The diagonal of two axes as a new last axis."""
    rank = len(x.shape)
    a, b = dim1 % rank, dim2 % rank
    down, right = max(-offset, 0), max(offset, 0)
    length = max(0, min(x.shape[a] - down, x.shape[b] - right))
    others = [k for k in range(rank) if k not in (a, b)]
    shape = (*(x.shape[k] for k in others), length)
    axes = ix.axes(shape)
    index = dict(zip(others, axes[:-1], strict=True))
    index[a], index[b] = axes[-1] + down, axes[-1] + right
    return g.view(x, shape, (index[k] for k in range(rank)))


def diag_embed(x: Node, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Node:
    """The last axis on the diagonal of two new axes, zero elsewhere."""
    rank = len(x.shape) + 1
    a, b = dim1 % rank, dim2 % rank
    n = x.shape[-1] + abs(offset)
    rest = iter(x.shape[:-1])
    shape = tuple(n if k in (a, b) else next(rest) for k in range(rank))
    axes = ix.axes(shape)
    down, right = max(-offset, 0), max(offset, 0)
    along = axes[a] - down
    others = [axes[k] for k in range(rank) if k not in (a, b)]
    valid = (*ix.inside(along, x.shape[-1]), ix.equals(along, axes[b] - right))
    return g.view(x, shape, (*others, along), ix.conjunction(valid), 0)


def tril(x: Node, diagonal: int = 0) -> Node:
    """Zero above the diagonal: j <= i + diagonal."""
    *_, i, j = x.axes
    return g.view(x, x.shape, x.axes, ix.conjunction((ix.at_least(i + diagonal - j, 0),)), 0)


def triu(x: Node, diagonal: int = 0) -> Node:
    """Zero below the diagonal: j >= i + diagonal."""
    *_, i, j = x.axes
    return g.view(x, x.shape, x.axes, ix.conjunction((ix.at_least(j - i - diagonal, 0),)), 0)


# ------------------------------------------------------------------------------ repeats and joins


def repeat(x: Node, repeats: Sequence[int]) -> Node:
    """Tile: output coordinate i reads i modulo the extent."""
    lead = len(repeats) - len(x.shape)
    whole = (1,) * lead + x.shape
    shape = tuple(n * r for n, r in zip(whole, repeats, strict=True))
    if not prod(shape):
        return g.const(0, x.dtype, shape)
    axes = ix.axes(shape)[lead:]
    return g.view(x, shape, (i % n for i, n in zip(axes, x.shape, strict=True)))


def repeat_interleave(
    x: Node, repeats: int | Node, dim: int | None = None, *, output_size: int | None = None
) -> Node:
    """Each element `repeats` times in a row."""
    if not isinstance(repeats, int):
        raise NotLowered("repeats given as a tensor")
    if dim is None:
        x, dim = g.reshape(x, (x.size,)), 0
    axis = dim % len(x.shape)
    if not repeats:
        return replace_axis(x, axis, 0, lambda i: i)
    return replace_axis(x, axis, x.shape[axis] * repeats, lambda i: i // repeats)


def cat(xs: Sequence[Node], dim: int = 0) -> Node:
    """Join along `dim` in the promoted dtype; empty 1-D tensors are skipped, as torch does."""
    if len(xs) > MOST_PARTS:
        raise NotLowered(f"joining {len(xs)} tensors, more than a kernel should be handed")
    dtype = xs[0].dtype
    for x in xs[1:]:
        dtype = promote_types(dtype, x.dtype)
    rank = max(len(x.shape) for x in xs)
    parts = [convert(x, dtype) for x in xs if x.shape != (0,) or rank == 1]
    return g.concat(parts, dim % rank)


def stack(xs: Sequence[Node], dim: int = 0) -> Node:
    axis = dim % (len(xs[0].shape) + 1)
    return cat([unsqueeze(x, axis) for x in xs], axis)


def pixel_shuffle(x: Node, factor: int) -> Node:
    """(..., C r^2, H, W) to (..., C, H r, W r)."""
    *lead, c, h, w = x.shape
    r, rank = factor, len(lead)
    split_ = g.reshape(x, (*lead, c // r**2, r, r, h, w))
    order = (*range(rank), rank, rank + 3, rank + 1, rank + 4, rank + 2)
    return g.reshape(g.permute(split_, order), (*lead, c // r**2, h * r, w * r))


def pixel_unshuffle(x: Node, factor: int) -> Node:
    """(..., C, H r, W r) to (..., C r^2, H, W)."""
    *lead, c, h, w = x.shape
    r, rank = factor, len(lead)
    split_ = g.reshape(x, (*lead, c, h // r, r, w // r, r))
    order = (*range(rank), rank, rank + 2, rank + 4, rank + 1, rank + 3)
    return g.reshape(g.permute(split_, order), (*lead, c * r**2, h // r, w // r))


def channel_shuffle(x: Node, groups: int) -> Node:
    n, c, *rest = x.shape
    parts = g.reshape(x, (n, groups, c // groups, *rest))
    return g.reshape(transpose(parts, 1, 2), x.shape)


# ------------------------------------------------------------------------------- writes into views


def slice_scatter(
    x: Node,
    source: Node,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Node:
    """x with `source` in the place of `x[start:end:step]`."""
    axis = dim % len(x.shape)
    first, extent = _slice_range(x.shape[axis], start, end, step)
    if not extent or not x.size:
        return x
    shift = x.axes[axis] - first
    inside = (*ix.inside(shift // step, extent), ix.equals(shift % step, 0))
    return overwrite(x, source, axis, shift // step, ix.conjunction(inside))


def overwrite(x: Node, source: Node, axis: int, at: Index, valid: Conds) -> Node:
    """x where `valid` fails, else `source`, read at `at` along `axis`."""
    index = (*x.axes[:axis], at, *x.axes[axis + 1 :])
    new = g.view(convert(source, x.dtype), x.shape, index, valid, 0)
    return g.where(mask_where(x.shape, valid), new, x) if valid else new


def select_scatter(x: Node, source: Node, dim: int, position: int | Number) -> Node:
    """x with `source` in the place of `x.select(dim, position)`."""
    axis = dim % len(x.shape)
    if isinstance(position, Number):
        return aten_gather.select_scatter_at(x, source, axis, position.node)
    at = position % x.shape[axis]
    valid = ix.conjunction((ix.equals(x.axes[axis], at),))
    return overwrite(x, g.keep_axes(source, (axis,)), axis, ix.const(0), valid)


def diagonal_scatter(x: Node, source: Node, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Node:
    """x with `source` on the diagonal of two axes."""
    rank = len(x.shape)
    a, b = dim1 % rank, dim2 % rank
    down, right = max(-offset, 0), max(offset, 0)
    along = x.axes[a] - down
    valid = ix.conjunction(
        (*ix.inside(along, source.shape[-1]), ix.equals(along, x.axes[b] - right))
    )
    others = [x.axes[k] for k in range(rank) if k not in (a, b)]
    new = g.view(convert(source, x.dtype), x.shape, (*others, along), valid, 0)
    return g.where(mask_where(x.shape, valid), new, x)


def meshgrid(xs: Sequence[Node], *, indexing: str = "ij") -> Many:
    """Each 1-D tensor along its own axis of the common grid."""
    extents = [prod(x.shape) for x in xs]
    order = list(range(len(xs)))
    if indexing == "xy" and len(xs) > 1:
        order[0], order[1] = 1, 0
    shape = tuple(extents[k] for k in order)
    out = []
    for k, x in enumerate(xs):
        ones = [1] * len(xs)
        ones[order.index(k)] = extents[k]
        out.append(g.expand(g.reshape(x, tuple(ones)), shape))
    return tuple(out)


def broadcast_tensors(xs: Sequence[Node]) -> Many:
    shape = broadcast_shapes(*(x.shape for x in xs))
    return tuple(as_node(x, x.dtype, shape) for x in xs)


TABLE: Mapping[str, Callable[..., Node | Many]] = {
    **{f"aten.{op}.default": reshape for op in ("view", "reshape", "_unsafe_view")},
    "aten.flatten.using_ints": flatten,
    "aten.unflatten.int": unflatten,
    "aten.view.dtype": view_dtype,
    "aten.view_as.default": lambda x, other: g.reshape(x, other.shape),
    "aten.permute.default": permute,
    "aten.transpose.int": transpose,
    "aten.t.default": t,
    "aten.unsqueeze.default": unsqueeze,
    **{f"aten.squeeze.{o}": squeeze for o in ("default", "dim", "dims")},
    "aten.expand.default": expand,
    "aten.expand_as.default": expand_as,
    "aten.as_strided.default": as_strided,
    "aten.slice.Tensor": slice_,
    "aten.select.int": select,
    "aten.narrow.default": narrow,
    "aten.split.Tensor": split,
    "aten.split_with_sizes.default": split_with_sizes,
    "aten.chunk.default": chunk,
    "aten.unbind.int": unbind,
    "aten.flip.default": flip,
    "aten.roll.default": roll,
    "aten.unfold.default": unfold,
    "aten.diagonal.default": diagonal,
    "aten.diag_embed.default": diag_embed,
    "aten.tril.default": tril,
    "aten.triu.default": triu,
    "aten.repeat.default": repeat,
    "aten.repeat_interleave.self_int": repeat_interleave,
    "aten.cat.default": cat,
    "aten.stack.default": stack,
    "aten.pixel_shuffle.default": pixel_shuffle,
    "aten.pixel_unshuffle.default": pixel_unshuffle,
    "aten.channel_shuffle.default": channel_shuffle,
    "aten.native_channel_shuffle.default": channel_shuffle,
    "aten.slice_scatter.default": slice_scatter,
    "aten.select_scatter.default": select_scatter,
    "aten.diagonal_scatter.default": diagonal_scatter,
    "aten.meshgrid.default": meshgrid,
    "aten.meshgrid.indexing": meshgrid,
    "aten.broadcast_tensors.default": broadcast_tensors,
}
