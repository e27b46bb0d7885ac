"""Scans of few long rows as three steps on the graph: folds of chunks, their scan, chunks' scans.

Each chunk starts from the fold of those before it (reduce-then-scan; D. Merrill, M. Garland,
"Single-pass Parallel Prefix Scan with Decoupled Look-back", 2016, section 3), so the order of
operations does not depend on timing. Into how many chunks is decided in `prepare`.
"""

from dataclasses import dataclass

from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir.graph import Node, Scalar, Shape
from fusewright.ir.index import Cond, Index
from fusewright.ir.scalar import REDUCTIONS, identity


@dataclass(frozen=True, slots=True)
class _Chunks:
    """The operand of a scan with its axis as two: chunks, and the `length` points of a chunk."""

    node: g.Scan
    count: int
    length: int
    none: Scalar

    @property
    def shape(self) -> Shape:
        n, axis = self.node.shape, self.node.axis
        return (*n[:axis], self.count, self.length, *n[axis + 1 :])

    @property
    def folded(self) -> Shape:
        n, axis = self.node.shape, self.node.axis
        return (*n[:axis], self.count, *n[axis + 1 :])

    def at(self, shape: Shape, position: Index, inside: tuple[Cond, ...] = ()) -> Node:
        """The operand at `position` of each chunk, in `shape` (of `self`, or `folded`)."""
        axis, out = self.node.axis, ix.axes(shape)
        after = out[axis + len(shape) - len(self.node.shape) + 1 :]
        at = out[axis] * self.length + position
        valid = ix.conjunction((ix.less(at, self.node.shape[axis]), *inside))
        return g.view(self.node.x, shape, (*out[:axis], at, *after), valid, self.none)

    def spread(self, x: Node, inside: tuple[Cond, ...] = ()) -> Node:
        """A value per chunk at each of its points, `none` outside of the conditions."""
        out, axis = ix.axes(self.shape), self.node.axis
        index = (*out[: axis + 1], *out[axis + 2 :])
        return g.view(x, self.shape, index, ix.conjunction(inside), self.none)


def split_scan(node: g.Scan, count: int) -> Node:
    """The same scan over `count` chunks of its axis."""
    op = node.op.removeprefix("arg")
    length = -(-node.shape[node.axis] // count)
    chunks = _Chunks(node, count, length, identity(op, node.x.dtype))
    axis, k = node.axis, ix.axes(chunks.shape)[node.axis + 1]
    last = length - 1
    before = g.scan(op, _fold(op, chunks.at(chunks.shape, k), axis + 1), axis,
                    reverse=node.reverse, exclusive=True)  # fmt: skip
    first = ix.at_least(k, last) if node.reverse else ix.less(k, 1)
    if node.exclusive:
        inside = ix.less(k, last) if node.reverse else ix.at_least(k, 1)
        own = chunks.at(chunks.shape, k + (1 if node.reverse else -1), (inside,))
    else:
        own = chunks.at(chunks.shape, k)
    started = _combine(op, chunks.spread(before, (first,)), own)
    out = g.scan(node.op, started, axis + 1, reverse=node.reverse)
    if op != node.op:
        out = _positions(out, before, chunks)
    i = node.axes
    index = (*i[:axis], i[axis] // length, i[axis] % length, *i[axis + 1 :])
    return g.view(out, node.shape, index)


def _fold(op: str, x: Node, axis: int) -> Node:
    """The fold of a whole chunk; the largest term of a log-sum-exp is taken out."""
    if op != "logsumexp":
        return g.reduce(op, x, (axis,))
    top = g.reduce("max", x, (axis,))
    infinite = g.unary("isinf", top)
    shift = g.where(infinite, g.const(0, top.dtype, top.shape), top)
    powers = g.unary("exp", g.binary("sub", x, g.insert_expanded(shift, (axis,), x.shape)))
    return g.binary("add", g.unary("log", g.reduce("sum", powers, (axis,))), shift)


def _combine(op: str, a: Node, b: Node) -> Node:
    """Two folds as one; equal infinities stay as they are in a log-sum-exp."""
    if op != "logsumexp":
        return g.binary(REDUCTIONS[op].combine, a, b)
    low, high = g.binary("minimum", a, b), g.binary("maximum", a, b)
    more = g.unary("log1p", g.unary("exp", g.binary("sub", low, high)))
    alike = g.binary("logical_and", g.binary("eq", low, high), g.unary("isinf", high))
    return g.where(alike, high, g.binary("add", high, more))


def _positions(out: Node, before: Node, chunks: _Chunks) -> Node:
    """Positions along the whole axis: of the chunk, or where what it started from stands.

    `out` are the positions in the chunks; a chunk whose first point is still the best has either
    its own first element there, or the carried value where that is better.
    """
    node, length = chunks.node, chunks.length
    first = length - 1 if node.reverse else 0
    own = chunks.at(chunks.folded, ix.const(first))
    keeps = g.binary("ge" if node.op == "argmax" else "le", own, before)
    if own.dtype.is_float:
        known = g.unary("logical_not", g.unary("isnan", before))
        keeps = g.binary("logical_or", g.unary("isnan", own), g.binary("logical_and", known, keeps))
    carried = g.unary("logical_not", keeps)
    here = g.binary("eq", out, g.const(first, g.INT64, out.shape))
    at = g.iota(ix.axes(chunks.shape)[node.axis] * length, chunks.shape)
    local = g.binary("add", out, at)
    taken = g.binary("logical_and", here, chunks.spread(carried))
    return g.where(taken, chunks.spread(_carried_positions(chunks)), local)


def _carried_positions(chunks: _Chunks) -> Node:
    """Where the extreme value of all chunks before a chunk stands, the one met last."""
    node, axis, length = chunks.node, chunks.node.axis, chunks.length
    k = ix.axes(chunks.shape)[axis + 1]
    met_last = k if node.reverse else (length - 1) - k
    whole = g.reduce(node.op.removeprefix("arg"), chunks.at(chunks.shape, k), (axis + 1,))
    inside = g.arg_reduce(node.op, chunks.at(chunks.shape, met_last), axis + 1)
    if not node.reverse:
        inside = g.binary("sub", g.const(length - 1, g.INT64, inside.shape), inside)
    best = g.scan(node.op, whole, axis, reverse=node.reverse)
    out = list(ix.axes(chunks.folded))
    near = out[axis] + (1 if node.reverse else -1)
    valid = ix.less(near, chunks.count) if node.reverse else ix.at_least(near, 0)
    index = (*out[:axis], near, *out[axis + 1 :])
    chunk = g.view(best, chunks.folded, index, ix.conjunction((valid,)), 0)
    index = (*out[:axis], ix.const(0), *out[axis + 1 :])
    inside = g.gather(inside, chunk, axis=axis, index=index)
    return g.binary("add", g.binary("mul", chunk, g.const(length, g.INT64, chunk.shape)), inside)
