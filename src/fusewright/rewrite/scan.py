"""Rules about scans: flipped ones run the other way, shifted ones leave their own element out.

PyTorch has neither reversed nor exclusive cumulative ops, so models write them with `flip`, and
with `cat` or `pad` of a shifted result. Each costs passes over memory that one scan does not need.
"""

from collections.abc import Iterator, Sequence

from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir.graph import Node
from fusewright.ir.index import Index
from fusewright.ir.scalar import identity

from .build import pointwise, through_view, value_of
from .rule import Env, Rule
from .samples import Draw

# Pointwise operations between a shifted scan and the slices of its operands.
DEPTH = 16


def _along(index: Sequence[Index], axis: int, extent: int) -> tuple[Index, bool] | None:
    """(variable, flipped) when the view walks all of `axis` by one variable that no other uses."""
    if extent < 2 or len(ix.variables(index[axis])) != 1:
        return None
    (v,) = ix.variables(index[axis])
    others = ix.variables(*index[:axis], *index[axis + 1 :])
    if v.extent != extent or v in others:
        return None
    if index[axis] == v:
        return v, False
    return (v, True) if index[axis] == (extent - 1) - v else None


def _view_of_scan(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.View)
    s = node.x
    if not isinstance(s, g.Scan) or node.valid or node.size > s.size:
        return None
    found = _along(node.index, s.axis, s.shape[s.axis])
    if found is None or (s.op in ("argmax", "argmin") and found[1]):
        return None
    axis, flipped = node.axes.index(found[0]), found[1]
    below = through_view(s.x, node.shape, node.index)
    return g.scan(s.op, below, axis, reverse=s.reverse != flipped, exclusive=s.exclusive)


def flipped(x: Node, axis: int) -> Node:
    """`x` in the opposite order along `axis`."""
    out = list(ix.axes(x.shape))
    out[axis] = (x.shape[axis] - 1) - out[axis]
    return through_view(x, x.shape, out)


def _drawn(draw: Draw, x: Node, axis: int, **ways: bool) -> Node:
    return g.scan(draw.pick(("sum", "prod", "max", "logsumexp")), x, axis, **ways)


def _flipped_twice(draw: Draw) -> Node:
    x, axis = draw.tensor((4, 3, 5)), draw.pick((0, 1, 2))
    ways = {"reverse": draw.chance(), "exclusive": draw.chance()}
    if draw.chance():
        x = g.unary("tanh", x)
    return flipped(_drawn(draw, flipped(x, axis), axis, **ways), axis)


def _half_of_it(draw: Draw) -> Iterator[Node]:
    x = draw.tensor((4, 3))
    i, j = ix.axes((4, 2))
    yield g.view(g.scan("sum", x, 1), (4, 2), (i, j + 1))
    yield g.view(g.scan("sum", x, 1), (4, 2), (i, 1 - j))
    yield flipped(g.scan("argmax", flipped(x, 1), 1), 1)


# ----------------------------------------------------------------------------------------- shifted


def _is_identity(x: Node, op: str) -> bool:
    return op not in ("argmax", "argmin") and value_of(x) == identity(op, x.dtype)


def _shifted_parts(node: g.Concat) -> Node | None:
    """concat(identity, scan(x)[:-1]), and its mirror image."""
    if len(node.xs) != 2:
        return None
    for reverse in (False, True):
        gap, part = reversed(node.xs) if reverse else node.xs
        s = part.x if isinstance(part, g.View) and not part.valid else None
        if not isinstance(s, g.Scan) or s.axis != node.axis or s.shape != node.shape:
            continue
        wanted = list(part.axes)
        wanted[s.axis] = wanted[s.axis] + (1 if reverse else 0)
        shifted = list(part.index) == wanted and gap.shape[s.axis] == 1  # type: ignore[attr-defined]
        if shifted and s.reverse == reverse and not s.exclusive and _is_identity(gap, s.op):
            return s
    return None


def _shifted_view(node: g.View) -> Node | None:
    """pad(scan(x)[:-1], 1, identity), and its mirror image."""
    s = node.x
    if not isinstance(s, g.Scan) or s.exclusive or node.shape != s.shape or not node.valid:
        return None
    at, step = node.axes[s.axis], -1 if not s.reverse else 1
    wanted = list(node.axes)
    wanted[s.axis] = at + step
    last = node.shape[s.axis] - 1
    valid = ix.conjunction((ix.at_least(at, 1) if step < 0 else ix.less(at, last),))
    fill = g.const(node.fill, s.dtype)
    same = list(node.index) == wanted and node.valid == valid and _is_identity(fill, s.op)
    return s if same else None


def _shifted_source(s: g.Scan) -> Node | None:
    """The x of scan(concat(identity, x[:-1])), and of its mirror image."""
    x = s.x
    if s.exclusive or not isinstance(x, g.Concat) or len(x.xs) != 2 or x.axis != s.axis:
        return None
    gap, part = reversed(x.xs) if s.reverse else x.xs
    if gap.shape[s.axis] != 1 or not _is_identity(gap, s.op):
        return None
    return _grown(part, s.axis, s.reverse, DEPTH)


def _grown(x: Node, axis: int, front: bool, depth: int) -> Node | None:
    """A value with one element more along `axis` (in `front` or behind) that holds `x` besides."""
    shape = (*x.shape[:axis], x.shape[axis] + 1, *x.shape[axis + 1 :])
    match x:
        case g.Const():
            return g.const(x.value, x.dtype, shape)
        case g.View() if not x.valid:
            old, new = x.axes[axis], ix.axes(shape)[axis]
            moved = tuple(ix.substitute(e, {old: new - 1 if front else new}) for e in x.index)
            inside = all(0 <= e.lo and e.hi < n for e, n in zip(moved, x.x.shape, strict=True))
            return through_view(x.x, shape, moved) if inside else None
        case g.Unary() | g.Binary() | g.Where() | g.Cast() if depth:
            below = [_grown(o, axis, front, depth - 1) for o in x.operands]
            return None if None in below else pointwise(x, below)  # type: ignore[arg-type]
        case _:
            return None


def _exclusive(node: Node, env: Env) -> Node | None:
    if isinstance(node, g.Scan):
        x = _shifted_source(node)
        s: Node | None = node
    else:
        s = _shifted_parts(node) if isinstance(node, g.Concat) else None
        s = _shifted_view(node) if isinstance(node, g.View) else s
        x = s.x if isinstance(s, g.Scan) else None
    if x is None or not isinstance(s, g.Scan):
        return None
    return g.scan(s.op, x, s.axis, reverse=s.reverse, exclusive=True)


def _part(x: Node, axis: int, start: int, stop: int) -> Node:
    shape = (*x.shape[:axis], stop - start, *x.shape[axis + 1 :])
    out = list(ix.axes(shape))
    out[axis] = out[axis] + start
    return through_view(x, shape, out)


def _shifted(x: Node, axis: int, gap: float, front: bool) -> Node:
    """`x` moved by one element along `axis`, `gap` in front of it or behind."""
    n = x.shape[axis]
    rest = _part(x, axis, 0, n - 1) if front else _part(x, axis, 1, n)
    hole = g.const(gap, x.dtype, (*x.shape[:axis], 1, *x.shape[axis + 1 :]))
    return g.concat((hole, rest) if front else (rest, hole), axis)


def _shifted_scan(draw: Draw) -> Node:
    x, axis = draw.tensor((4, 3, 5)), draw.pick((0, 1, 2))
    op, reverse = draw.pick(("sum", "prod", "max")), draw.chance()
    none = float(identity(op, x.dtype))
    if draw.chance():
        y = g.binary("mul", x, draw.tensor(x.shape)) if draw.chance() else x
        return g.scan(op, _shifted(y, axis, none, not reverse), axis, reverse=reverse)
    s = g.scan(op, x, axis, reverse=reverse)
    if draw.chance():
        return _shifted(s, axis, none, not reverse)
    at, n, index = ix.axes(x.shape)[axis], x.shape[axis], list(ix.axes(x.shape))
    index[axis] = at + 1 if reverse else at - 1
    valid = ix.conjunction((ix.less(at, n - 1) if reverse else ix.at_least(at, 1),))
    return g.view(s, x.shape, index, valid, none)


def _other_gap(draw: Draw) -> Iterator[Node]:
    x = draw.tensor((4, 3))
    s = g.scan("sum", x, 1)
    yield _shifted(s, 1, 1.0, True)
    yield _shifted(s, 1, 0.0, False)
    yield _shifted(s, 0, 0.0, True)
    yield g.scan("sum", _shifted(x, 1, 2.0, True), 1)
    yield g.scan("prod", _shifted(x, 1, 0.0, True), 1)
    yield g.scan("sum", g.concat((g.const(0.0, x.dtype, (4, 1)), x), 1), 1)


RULES = (
    Rule(
        "view-of-scan",
        "flip(scan(flip(x))) = scan of x from the last element to the first",
        "exact",
        (g.View,),
        _view_of_scan,
        "the view visits the whole axis in its order or against it, and repeats nothing",
        _flipped_twice,
        _half_of_it,
    ),
    Rule(
        "exclusive-scan",
        "concat(z, scan(x)[:-1]) = scan(concat(z, x[:-1])) = scan of x without its own element",
        "exact",
        (g.Concat, g.View, g.Scan),
        _exclusive,
        "z is the fold of nothing, one element along the axis that is scanned",
        _shifted_scan,
        _other_gap,
    ),
)
