"""Rules about scans: flipped ones run the other way, moved ones are scans of moved operands.

PyTorch has neither reversed nor exclusive cumulative ops, so models write them with `flip`, and
with `cat` or `pad` of a part of the result or of the operand. Each costs passes over memory that
one scan does not need. How a scan is moved is in `scan_window`.
"""

from collections.abc import Iterator

from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir.dtypes import INT64
from fusewright.ir.graph import Node
from fusewright.ir.scalar import identity
from fusewright.target.cost import is_pointwise, reaches_scan

from .build import through_view, value_of
from .rule import Env, Rule
from .samples import Draw
from .scan_window import at_places, seen, without_first

# Parts of a concatenation that are chosen from at every point of a scan.
MOST_PARTS = 4
# Rows of so many bytes, or a multiple, are written by whole vectors.
ALIGNMENT = 16


def _view_of_scan(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.View)
    in_place = node.shape == node.x.shape and node.index == node.axes
    padded_work = bool(node.valid) and is_pointwise(node.x) and reaches_scan(node.x)
    if in_place or not (isinstance(node.x, g.Scan) or padded_work):
        return None
    if not node.valid and node.size < node.x.size and _stays_view(node, env):
        return None
    return seen(node.x, node.shape, node.index, node.valid, node.fill)


def _stays_view(node: g.View, env: Env) -> bool:
    """Whether a part of a scan is returned as it is in memory; not if only its rows are aligned."""
    part, whole = (x.shape[-1] * x.dtype.bytes % ALIGNMENT for x in (node, node.x))
    return None in env.users(node) and bool(part or not whole)


def flipped(x: Node, axis: int) -> Node:
    """`x` in the opposite order along `axis`."""
    out = list(ix.axes(x.shape))
    out[axis] = (x.shape[axis] - 1) - out[axis]
    return through_view(x, x.shape, out)


def _part(x: Node, axis: int, start: int, stop: int) -> Node:
    shape = (*x.shape[:axis], stop - start, *x.shape[axis + 1 :])
    out = list(ix.axes(shape))
    out[axis] = out[axis] + start
    return through_view(x, shape, out)


def _padded(x: Node, axis: int, low: int, high: int, fill: float) -> Node:
    """`x` between `low` and `high` elements of `fill` along `axis`; negative ones cut it."""
    shape = (*x.shape[:axis], low + x.shape[axis] + high, *x.shape[axis + 1 :])
    out = list(ix.axes(shape))
    out[axis] = out[axis] - low
    return through_view(x, shape, out, ix.inside(out[axis], x.shape[axis]), fill)


def _drawn(draw: Draw, x: Node, axis: int, **ways: bool) -> Node:
    return g.scan(draw.pick(("sum", "prod", "max", "logsumexp")), x, axis, **ways)


def _moved_scan(draw: Draw) -> Node:
    x, axis = draw.tensor((4, 3, 5)), draw.pick((0, 1, 2))
    ways = {"reverse": draw.chance(), "exclusive": draw.chance()}
    if draw.chance():
        x = g.unary("tanh", x)
    if draw.chance():
        return flipped(_drawn(draw, flipped(x, axis), axis, **ways), axis)
    s = _drawn(draw, x, axis, **ways)
    front, back = draw.pick(((1, -1), (1, 0), (2, 1), (0, 1), (2, -1), (0, -1)))
    fill = identity(s.op, s.dtype) if draw.chance() else draw.number()  # type: ignore[attr-defined]
    s = g.unary("tanh", s) if draw.chance() and front > 0 else s
    low, high = (back, front) if ways["reverse"] else (front, back)
    out = _padded(s, axis, low, high, fill)
    return g.unary("tanh", out) if front == 0 and back < 0 else out


def _half_of_it(draw: Draw) -> Iterator[Node]:
    x = draw.tensor((4, 3))
    s = g.scan("sum", x, 1)
    i, j = ix.axes((4, 2))
    yield g.view(s, (4, 2), (i, j + 1))
    yield _part(g.scan("sum", draw.tensor((4, 4)), 1), 1, 0, 3)
    yield _padded(s, 1, -1, 2, 0.0)
    yield flipped(g.scan("argmax", flipped(x, 1), 1), 1)
    yield _padded(g.scan("argmax", x, 1), 1, 1, 0, 0)
    yield g.view(s, (4, 2), (i, j * 2))
    yield g.view(s, (4, 3), ix.axes((4, 3)), (ix.at_least(ix.axes((4, 3))[1], 1),), 5.0)


# ------------------------------------------------------------------------------------ concatenated


def _concat_of_scan(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Concat)
    axis = node.axis
    if len(node.xs) > MOST_PARTS:
        return None
    scanned = [k for k, x in enumerate(node.xs) if reaches_scan(x)]
    if len(scanned) != 1 or 2 * node.xs[scanned[0]].shape[axis] < node.shape[axis]:
        return None
    return _one_scan(node, scanned[0], sum(x.shape[axis] for x in node.xs[: scanned[0]]))


def _one_scan(node: g.Concat, number: int, start: int) -> Node | None:
    """All of the concatenation where the scan in part `number` is."""
    index, x = list(node.axes), node.xs[number]
    index[node.axis] = index[node.axis] - start
    valid = ix.inside(index[node.axis], x.shape[node.axis])
    others = {value_of(o) for k, o in enumerate(node.xs) if k != number}
    if len(others) == 1 and None not in others:
        return seen(x, node.shape, index, valid, *others)  # type: ignore[arg-type]
    moved = at_places(x, node.shape, index, valid)
    return None if moved is None else _chosen(node, number, moved)


def _chosen(node: g.Concat, number: int, moved: Node) -> Node:
    """The part that each point is in, by comparisons of its place; `moved` is in `number`."""
    place, stop = node.axes[node.axis], node.shape[node.axis]
    at, out = g.iota(place, node.shape), None
    for k, x in reversed(list(enumerate(node.xs))):
        start = stop - x.shape[node.axis]
        part = moved if k == number else _spread(x, node, start)
        before = g.binary("lt", at, g.const(stop, at.dtype, node.shape))
        out, stop = part if out is None else g.where(before, part, out), start
    assert out is not None
    return out


def _spread(x: Node, node: g.Concat, start: int) -> Node:
    return _padded(x, node.axis, start, node.shape[node.axis] - start - x.shape[node.axis], 0)


def _between(draw: Draw) -> Node:
    x, axis = draw.tensor((4, 3, 5)), draw.pick((0, 1, 2))
    op, reverse = draw.pick(("sum", "prod", "max")), draw.chance()
    s, n = g.scan(op, x, axis, reverse=reverse), x.shape[axis]
    if draw.chance():
        s = _part(s, axis, int(reverse), n - int(not reverse))
    s = g.unary("tanh", s) if draw.chance() else s
    hole = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
    gap = draw.tensor(hole) if draw.chance() else draw.like(draw.number(), draw.tensor(hole))
    gap = g.const(identity(op, x.dtype), x.dtype, hole) if draw.chance() else gap
    return g.concat((s, gap) if reverse else (gap, s), axis)


def _other_concat(draw: Draw) -> Iterator[Node]:
    x = draw.tensor((4, 3))
    s, gap = g.scan("sum", x, 1), draw.tensor((4, 1))
    yield g.concat((s, draw.tensor((2, 3))), 0)
    yield g.concat((_part(s, 1, 1, 3), gap), 1)
    yield g.concat((s, draw.tensor((4, 9))), 1)
    yield g.concat((g.const(0, INT64, (4, 1)), g.scan("argmax", x, 1)), 1)


# ----------------------------------------------------------------------------------------- shifted


def _exclusive(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Scan)
    if node.exclusive or node.op in ("argmax", "argmin"):
        return None
    x = without_first(node.x, node.axis, node.reverse, node.op)
    if x is None:
        return None
    return g.scan(node.op, x, node.axis, reverse=node.reverse, exclusive=True)


def _scan_of_shifted(draw: Draw) -> Node:
    x, axis = draw.tensor((4, 3, 5)), draw.pick((0, 1, 2))
    op, reverse = draw.pick(("sum", "prod", "max")), draw.chance()
    y = g.binary("mul", x, draw.tensor(x.shape)) if draw.chance() else x
    none, n = float(identity(op, x.dtype)), x.shape[axis]
    if draw.chance():
        y = _padded(y, axis, *((-1, 1) if reverse else (1, -1)), none)
        return g.scan(op, y, axis, reverse=reverse)
    hole = g.const(none, x.dtype, (*x.shape[:axis], 1, *x.shape[axis + 1 :]))
    if draw.chance():
        y = _part(y, axis, 1, n) if reverse else _part(y, axis, 0, n - 1)
    return g.scan(op, g.concat((y, hole) if reverse else (hole, y), axis), axis, reverse=reverse)


def _other_gap(draw: Draw) -> Iterator[Node]:
    x = draw.tensor((4, 3))
    one = g.const(2.0, x.dtype, (4, 1))
    yield g.scan("sum", g.concat((one, _part(x, 1, 0, 2)), 1), 1)
    yield g.scan("prod", g.concat((g.const(0.0, x.dtype, (4, 1)), x), 1), 1)
    yield g.scan("sum", _padded(x, 1, 2, -2, 0.0), 1)
    yield g.scan("sum", _padded(x, 1, 1, -1, 1.0), 1)
    yield g.scan("sum", _padded(x, 1, 1, -1, 0.0), 1, reverse=True)
    yield g.scan("sum", _padded(x, 1, 1, -1, 0.0), 0)


RULES = (
    Rule(
        "view-of-scan",
        "pad(scan(x)) = scan(pad(x)), scan(x)[:n] = scan(x[:n]), flip(scan(flip(x))) = backwards",
        "exact",
        (g.View,),
        _view_of_scan,
        "the view walks the scanned axis from where the scan starts, or before; a part of a scan"
        " that is returned stays a view, unless only its own rows are aligned",
        _moved_scan,
        _half_of_it,
    ),
    Rule(
        "concat-of-scan",
        "concat(z, scan(x)) = z in front, then scan(pad(x))",
        "exact",
        (g.Concat,),
        _concat_of_scan,
        "joined along the scanned axis, of which the scan has half or more",
        _between,
        _other_concat,
    ),
    Rule(
        "exclusive-scan",
        "scan(concat(z, x)) = scan of x without its own element",
        "exact",
        (g.Scan,),
        _exclusive,
        "z is the fold of nothing, one element along the axis that is scanned",
        _scan_of_shifted,
        _other_gap,
    ),
)
