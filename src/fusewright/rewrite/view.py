"""Rules about layout: views of views, of constants, of concatenations, and where views belong.

A view that selects or permutes goes below pointwise operations, next to the leaves, so that
pointwise chains meet; a view that repeats elements goes above them, so that nothing is computed
twice. No arithmetic is simplified here.
"""

from collections.abc import Iterator, Sequence

from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir.dtypes import FLOAT64
from fusewright.ir.graph import Node, Scalar
from fusewright.ir.index import Conds, Index
from fusewright.target.cost import is_pointwise

from .build import (
    dependent_axes,
    drop_axes,
    mapping,
    pointwise,
    restored,
    through_view,
    value_of,
)
from .numerics import fold, stored
from .rule import Env, Rule
from .samples import Draw

POINTWISE = (g.Unary, g.Binary, g.Where, g.Cast)


# ------------------------------------------------------------------------------ views of something


def _compose(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.View)
    if not isinstance(node.x, g.View | g.Const | g.Iota):
        return None
    if isinstance(node.x, g.Iota):
        if node.valid:
            return None
        value = ix.substitute(node.x.value, mapping(node.x.shape, node.index))
        return g.iota(value, node.shape, node.dtype)
    return through_view(node.x, node.shape, node.index, node.valid, node.fill)


def _two_views(draw: Draw) -> Node:
    x = draw.tensor((4, 3, 2))
    inner = draw.pick(
        (g.reshape(x, (2, 2, 6)), g.permute(x, (2, 0, 1)), g.expand(x, (3, 4, 3, 2)), _padded(x))
    )
    return g.reshape(_flipped(inner), (inner.size // 2, 2))


def _padded(x: Node, low: int = 1, high: int = 2, fill: Scalar = 0.0) -> Node:
    """`x` with `low` and `high` elements of `fill` around its first axis."""
    shape = (x.shape[0] + low + high, *x.shape[1:])
    out = ix.axes(shape)
    at = out[0] - low
    return g.view(x, shape, (at, *out[1:]), ix.inside(at, x.shape[0]), fill)


def _flipped(x: Node) -> Node:
    out = ix.axes(x.shape)
    return g.view(x, x.shape, ((x.shape[0] - 1) - out[0], *out[1:]))


def _other_fill(draw: Draw) -> Iterator[Node]:
    yield _padded(_padded(draw.tensor((3, 2)), fill=0.0), fill=1.0)
    yield _padded(g.const(2.0, draw.tensor().dtype, (3, 2)), fill=1.0)


def _tidy(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.View)
    if not node.valid:
        return None
    conds = tidied(node.valid)
    return (
        None
        if conds == node.valid
        else through_view(node.x, node.shape, node.index, conds, node.fill)
    )


def tidied(conds: Conds) -> Conds:
    """The conjunction without conditions that another implies; FALSE if two exclude each other."""
    strongest: dict[tuple[tuple[int, Index], ...], int] = {}
    for c in conds:
        if c.kind == "ge":
            constant, terms = ix.parts(c.x)
            strongest[terms] = min(constant, strongest.get(terms, constant))
    for terms, constant in strongest.items():
        negated = ix.parts(-1 * ix.Linear(0, terms))[1]
        if negated in strongest and constant + strongest[negated] < 0:
            return ix.FALSE
    kept = [c for c in conds if c.kind == "eq" or ix.parts(c.x)[0] == strongest[ix.parts(c.x)[1]]]
    return ix.conjunction(kept)


def _redundant_bounds(draw: Draw) -> Node:
    x = draw.tensor((6, 3))
    i, j = ix.axes((8, 3))
    conds = (ix.at_least(i, 2), ix.at_least(i, 1), ix.less(i, draw.pick((7, 8))))
    bad = (ix.at_least(i, 5), ix.less(i, 4))
    if draw.chance():
        return g.view(x, (8, 3), (i - 2, j), tuple(sorted(conds, key=lambda c: c.key)))
    return g.view(x, (8, 3), (i - 2, j), tuple(sorted(bad, key=lambda c: c.key)))


def _independent_bounds(draw: Draw) -> Iterator[Node]:
    i, j = ix.axes((8, 8))
    conds = (ix.at_least(i, 2), ix.less(i, 7), ix.at_least(j, i))
    yield g.view(draw.tensor((6, 8)), (8, 8), (i - 2, j), ix.conjunction(conds))


# ------------------------------------------------------------------- views and pointwise operations


def _sink(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.View)
    if not is_pointwise(node.x) or node.valid or node.size > node.x.size:
        return None
    below = [through_view(o, node.shape, node.index) for o in node.x.operands]
    return pointwise(node.x, below)


def _view_of_sum(draw: Draw) -> Node:
    x, y = draw.tensor((4, 3)), draw.tensor((4, 3))
    return g.reshape(g.permute(g.binary("add", g.unary("tanh", x), y), (1, 0)), (2, 6))


def _shared_or_expanded(draw: Draw) -> Iterator[Node]:
    y = g.unary("exp", draw.tensor((4, 1)))
    yield g.binary("mul", g.expand(y, (4, 6)), draw.tensor((4, 6)))
    z = g.unary("exp", draw.tensor((4, 4)))
    yield g.binary("mul", g.permute(z, (1, 0)), z)


def _hoist_broadcast(node: Node, env: Env) -> Node | None:
    depends = frozenset().union(*(dependent_axes(o) for o in node.operands))
    missing = [k for k, n in enumerate(node.shape) if n > 1 and k not in depends]
    if not missing or not node.size or all(value_of(o) is not None for o in node.operands):
        return None
    small = pointwise(node, [drop_axes(o, missing) for o in node.operands])
    return restored(small, missing, node.shape)


def _repeated_operands(draw: Draw) -> Node:
    shape = (3, 4, 2)
    a, b = draw.row(shape, (0,)), draw.row(shape, draw.pick(((1,), (0,))))
    return g.binary("mul", g.unary("exp", a), b)


def _other_axis(draw: Draw) -> Iterator[Node]:
    shape = (3, 3)
    yield g.binary("mul", draw.row(shape, (0,)), draw.row(shape, (1,)))


def _hoist_view(node: Node, env: Env) -> Node | None:
    views = [o for o in node.operands if isinstance(o, g.View)]
    if not views or views[0].x.size >= node.size:
        return None
    first = views[0]
    layout = (first.index, first.valid, first.x.shape)
    if any((v.index, v.valid, v.x.shape) != layout for v in views[1:]):
        return None
    values = [value_of(o) for o in node.operands]
    if any(c is None and not isinstance(o, g.View) for o, c in zip(node.operands, values)):
        return None
    fill: Scalar | None = 0
    if first.valid:
        fill = _fill_of(node, [o.fill if isinstance(o, g.View) else o.value for o in node.operands])  # type: ignore[union-attr]
    if fill is None:
        return None
    below = [
        o.x if isinstance(o, g.View) else g.const(o.value, o.dtype, first.x.shape)  # type: ignore[union-attr]
        for o in node.operands
    ]
    return g.view(pointwise(node, below), node.shape, first.index, first.valid, fill)


def _fill_of(node: Node, fills: Sequence[Scalar]) -> Scalar | None:
    """What the pointwise operation gives where its operands are `fills`."""
    match node:
        case g.Where():
            return fills[1] if fills[0] else fills[2]
        case g.Cast():
            return stored(fills[0], node.dtype)
        case g.Unary() | g.Binary():
            return fold(node.op, node.operands[0].dtype, *fills)
        case _:
            return None


def _pointwise_of_padded(draw: Draw) -> Node:
    x = draw.tensor((3, 2))
    i, j = ix.axes((6, 2))
    repeated = g.view(x, (6, 2), (i // 2, j))
    big = draw.pick((repeated, _padded(x)))
    return g.binary("mul", g.unary("tanh", big), draw.like(draw.number(), big))


def _different_padding(draw: Draw) -> Iterator[Node]:
    x = draw.tensor((3, 2))
    yield g.binary("add", _padded(x, 1, 2), _padded(x, 2, 1))
    yield g.binary("mul", _padded(x), draw.tensor((6, 2)))


# ------------------------------------------------------------------------------------ concatenation


def _part_of_concat(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.View)
    if not isinstance(node.x, g.Concat) or not node.size:
        return None
    axis, start = node.x.axis, 0
    at = node.index[axis]
    for part in node.x.xs:
        stop = start + part.shape[axis]
        if start <= at.lo and at.hi < stop:
            index = (*node.index[:axis], at - start, *node.index[axis + 1 :])
            return through_view(part, node.shape, index, node.valid, node.fill)
        start = stop
    return None


def _sliced(x: Node, axis: int, start: int, stop: int, step: int = 1) -> Node:
    extent = (stop - start + step - 1) // step
    shape = (*x.shape[:axis], extent, *x.shape[axis + 1 :])
    out = list(ix.axes(shape))
    out[axis] = out[axis] * step + start
    return g.view(x, shape, out)


def _slice_in_part(draw: Draw) -> Node:
    parts = [draw.tensor((n, 3)) for n in (3, 4, 2)]
    start = draw.pick((0, 3, 7))
    return _sliced(g.concat(parts, 0), 0, start, start + 2)


def _slice_across(draw: Draw) -> Iterator[Node]:
    yield _sliced(g.concat([draw.tensor((3, 2)), draw.tensor((3, 2))], 0), 0, 2, 5)


def _join_parts(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Concat)
    parts: list[Node] = []
    for x in node.xs:
        inner = x.xs if isinstance(x, g.Concat) and x.axis == node.axis else (x,)
        for part in inner:
            if not part.shape[node.axis]:
                continue
            joined = _joined(parts[-1], part, node.axis) if parts else None
            parts[len(parts) - (joined is not None) :] = [part if joined is None else joined]
    if len(parts) == len(node.xs):
        return None
    return g.concat(parts, node.axis) if parts else g.const(0, node.dtype, node.shape)


def _joined(a: Node, b: Node, axis: int) -> Node | None:
    """The one view or constant that `a` and `b` are adjacent pieces of, if there is one."""
    n, m = a.shape[axis], b.shape[axis]
    shape = (*a.shape[:axis], n + m, *a.shape[axis + 1 :])
    if isinstance(a, g.Const) and isinstance(b, g.Const) and a.value == b.value:
        return g.const(a.value, a.dtype, shape)
    if not isinstance(a, g.View) or not isinstance(b, g.View) or a.x != b.x or a.valid or b.valid:
        return None
    first, second, whole = (ix.axis(axis, k) for k in (n, m, n + m))
    index = []
    for e, f in zip(a.index, b.index, strict=True):
        step = ix.coefficient(e, first) if n > 1 else ix.coefficient(f, second) if m > 1 else None
        start = ix.substitute(e, {first: ix.const(0)})
        if step is None:
            gap = ix.constant_value(ix.substitute(f, {second: ix.const(0)}) - start)
            step = gap if n == m == 1 else None
        if step is None:
            return None
        joined = start + whole * step
        if (
            ix.substitute(joined, {whole: first}) != e
            or ix.substitute(joined, {whole: second + n}) != f
        ):
            return None
        index.append(joined)
    return g.view(a.x, shape, index)


def _adjacent(draw: Draw) -> Node:
    x = draw.tensor((6, 3))
    cut = draw.pick((1, 2, 5))
    return g.concat([_sliced(x, 0, 0, cut), _sliced(x, 0, cut, 6), draw.tensor((1, 3))], 0)


def _not_adjacent(draw: Draw) -> Iterator[Node]:
    x = draw.tensor((6, 3))
    yield g.concat([_sliced(x, 0, 0, 2), _sliced(x, 0, 3, 6)], 0)
    yield g.concat([_sliced(x, 0, 3, 6), _sliced(x, 0, 0, 3)], 0)
    yield g.concat([_sliced(x, 0, 0, 6, 2), _sliced(x, 0, 1, 6, 2)], 0)


# ------------------------------------------------------------------------------------------ gathers


def position_of(x: Node) -> Index | None:
    """The index expression an integer tensor computes from its own position, if it is known."""
    match x:
        case g.Const() if x.dtype.kind == "int":
            return ix.const(int(x.value))
        case g.Iota():
            return x.value
        case g.View() if not x.valid:
            inner = position_of(x.x)
            return None if inner is None else ix.substitute(inner, mapping(x.x.shape, x.index))
        case g.Cast() if x.dtype.kind == "int" and x.dtype.bits >= 32:
            return position_of(x.x) if x.x.dtype.kind == "int" else None
        case _:
            return None


def _known_gather(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Gather)
    at = position_of(node.where)
    extent = node.x.shape[node.axis]
    if at is None or not node.size or at.lo < 0 or at.hi >= extent:
        return None
    index = (*node.index[: node.axis], at, *node.index[node.axis + 1 :])
    return through_view(node.x, node.shape, index)


def _gather_every_second(draw: Draw) -> Node:
    x = draw.tensor((6, 3))
    i, j = ix.axes((3, 3))
    where = g.iota(i * 2 + draw.pick((0, 1)), (3, 3))
    return g.gather(x, where, axis=0, index=(ix.const(0), j))


def _gather_unknown(draw: Draw) -> Iterator[Node]:
    i, j = ix.axes((3, 3))
    test = g.binary("lt", draw.tensor((3, 3)), g.const(0.0, FLOAT64, (3, 3)))
    where = g.where(test, g.iota(i, (3, 3)), g.iota(i * 2, (3, 3)))
    yield g.gather(draw.tensor((6, 3)), where, axis=0, index=(ix.const(0), j))


def _sink_gather(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Gather)
    if not is_pointwise(node.x) or node.size >= node.x.size:
        return None
    below = [_gathered(o, node) for o in node.x.operands]
    if not any(isinstance(o, g.Gather) for o in below):
        return None  # the bounds of the positions would go unchecked
    return pointwise(node.x, below)


def _gathered(x: Node, node: g.Gather) -> Node:
    """What `node` gathers of x, an operand of its source: a view where x is the same all along."""
    if node.axis in dependent_axes(x):
        return g.gather(x, node.where, axis=node.axis, index=node.index)
    return through_view(x, node.shape, node.index)


def _gather_of_difference(draw: Draw) -> Node:
    x, low = draw.tensor((4, 6)), draw.tensor((4,))
    away = g.binary("sub", g.unary("exp", x), g.insert_expanded(low, (1,), (4, 6)))
    chosen = g.where(
        g.binary("lt", draw.tensor((4,)), g.const(0.0, FLOAT64, (4,))),
        g.iota(ix.axes((4,))[0], (4,)),
        g.iota(ix.axes((4,))[0] + 2, (4,)),
    )
    return g.gather(away, chosen, axis=1, index=(ix.axes((4,))[0], ix.const(0)))


def _gather_of_little(draw: Draw) -> Iterator[Node]:
    i, j = ix.axes((9, 3))
    test = g.binary("lt", draw.tensor((9, 3)), g.const(0.0, FLOAT64, (9, 3)))
    where = g.where(test, g.iota(i % 2, (9, 3)), g.iota(i % 3 + 1, (9, 3)))
    yield g.gather(g.unary("exp", draw.tensor((6, 3))), where, axis=0, index=(ix.const(0), j))


RULES = (
    Rule(
        "compose-views",
        "view_f(view_g(x)) = view_{g∘f}(x); view(const) = const",
        "exact",
        (g.View,),
        _compose,
        "the fill values agree where both views have borders",
        _two_views,
        _other_fill,
    ),
    Rule(
        "tidy-bounds",
        "conditions on indices that follow from others are dropped",
        "exact",
        (g.View,),
        _tidy,
        "the dropped condition is implied for every index",
        _redundant_bounds,
        _independent_bounds,
    ),
    Rule(
        "part-of-concat",
        "view of concat(a, b, ...) = view of the one part it looks at",
        "exact",
        (g.View,),
        _part_of_concat,
        "the index stays inside one part",
        _slice_in_part,
        _slice_across,
    ),
    Rule(
        "sink-view",
        "view(f(x, y)) = f(view(x), view(y))",
        "exact",
        (g.View,),
        _sink,
        "the view has no border and repeats nothing, and f(x, y) is used nowhere else",
        _view_of_sum,
        _shared_or_expanded,
    ),
    Rule(
        "hoist-broadcast",
        "f(expand(x), expand(y)) = expand(f(x, y))",
        "exact",
        POINTWISE,
        _hoist_broadcast,
        "no operand depends on the axes that are expanded",
        _repeated_operands,
        _other_axis,
    ),
    Rule(
        "hoist-view",
        "f(view(x), view(y)) = view(f(x, y))",
        "exact",
        POINTWISE,
        _hoist_view,
        "one index map with more elements than its source; f of the fills is the new fill",
        _pointwise_of_padded,
        _different_padding,
    ),
    Rule(
        "join-parts",
        "concat(x[0:k], x[k:n]) = x[0:n]; nested and empty parts dissolve",
        "exact",
        (g.Concat,),
        _join_parts,
        "the parts are adjacent pieces of one tensor, in order",
        _adjacent,
        _not_adjacent,
    ),
    Rule(
        "known-gather",
        "gather(x, f(i)) = view_f(x)",
        "exact",
        (g.Gather,),
        _known_gather,
        "the positions follow from the element's own index and lie inside the source",
        _gather_every_second,
        _gather_unknown,
    ),
    Rule(
        "sink-gather",
        "gather(f(x, y)) = f(gather(x), gather(y))",
        "exact",
        (g.Gather,),
        _sink_gather,
        "fewer elements are gathered than there are, and one operand differs along the axis",
        _gather_of_difference,
        _gather_of_little,
    ),
)
