"""The rule that what no one reads is not computed: a view's bounding box bounds what is below it.

`view` and `contract` move a view below one operation; here a box moves through a whole network of
them at once, since a value that two of them share pays only when both need less of it.
"""

from collections.abc import Iterator, Sequence
from math import prod

from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir.graph import Node
from fusewright.ir.index import Index
from fusewright.target.cost import is_pointwise

from .build import mapping, pointwise, through_view
from .contract import convolution, matmul
from .reduce import kept_axes
from .rule import Env, Rule
from .samples import Draw

# At least this share is unread: a library call may have to copy operands of other strides.
UNREAD = 0.1
# Values through which a box is carried at most.
REACH = 64

Box = tuple[tuple[int, int], ...]


def _crop_unread(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.View)
    box = _box(node.index, node.x.shape)
    read = prod(n for _, n in box)
    if not read or read > (1 - UNREAD) * node.x.size or not _is_computed(node.x):
        return None
    if env.uses(node.x) > 1:
        return None
    below = _Crop(_used_below_alone(node, env)).crop(node.x, box)
    return through_view(below, node.shape, _shifted(node.index, box), node.valid, node.fill)


def _used_below_alone(node: g.View, env: Env) -> set[Node]:
    """The values that nothing but `node` needs, the nearest of them."""
    found: set[Node] = {node}
    for n in list(reversed(g.topological((node.x,))))[:REACH]:
        if found.issuperset(env.users(n)):
            found.add(n)
    return found - {node}


def _box(index: Sequence[Index], shape: Sequence[int]) -> Box:
    """(first, extent) along each axis of what `index` reads of a tensor, conditions aside."""
    ends = [(max(e.lo, 0), min(e.hi, n - 1)) for e, n in zip(index, shape, strict=True)]
    return tuple((low, max(high - low + 1, 0)) for low, high in ends)


def _shifted(index: Sequence[Index], box: Box) -> tuple[Index, ...]:
    return tuple(e - low for e, (low, _) in zip(index, box, strict=True))


def _is_computed(x: Node) -> bool:
    below = x.x if isinstance(x, g.View) else x
    return is_pointwise(below) or isinstance(below, g.Reduce | g.Contract)


class _Crop:
    """Cropped values: the same value cropped to the same box is made once. What others read too is
    not cropped but read in part."""

    def __init__(self, croppable: set[Node]) -> None:
        self.croppable = croppable
        self.done: dict[tuple[Node, Box], Node] = {}

    def crop(self, x: Node, box: Box) -> Node:
        """`x` inside `box` only."""
        if all(low == 0 and n == extent for (low, n), extent in zip(box, x.shape, strict=True)):
            return x
        if (x, box) not in self.done:
            self.done[x, box] = self._cropped(x, box)
        return self.done[x, box]

    def _cropped(self, x: Node, box: Box) -> Node:
        shape = tuple(n for _, n in box)
        at = [v + low for v, (low, _) in zip(ix.axes(shape), box, strict=True)]
        if x in self.croppable:
            match x:
                case g.Unary() | g.Binary() | g.Where() | g.Cast():
                    return pointwise(x, [self.crop(o, box) for o in x.operands])
                case g.Reduce():
                    return self._reduction(x, box)
                case g.Contract():
                    return _contraction(x, shape, at)
                case g.View():
                    return self._view(x, shape, at)
                case _:
                    pass
        return through_view(x, shape, at)

    def _reduction(self, x: g.Reduce, box: Box) -> Node:
        inner: list[tuple[int, int]] = [(0, n) for n in x.x.shape]
        for k, part in zip(kept_axes(x), box, strict=True):
            inner[k] = part
        return g.reduce(x.op, self.crop(x.x, tuple(inner)), x.axes_reduced)

    def _view(self, x: g.View, shape: tuple[int, ...], at: Sequence[Index]) -> Node:
        names = mapping(x.shape, at)
        index = [ix.substitute(e, names) for e in x.index]
        valid = ix.substitute_conds(x.valid, names)
        box = _box(index, x.x.shape)
        if not _is_computed(x.x) or not all(n for _, n in box):
            return through_view(x.x, shape, index, valid, x.fill)
        return through_view(self.crop(x.x, box), shape, _shifted(index, box), valid, x.fill)


def _contraction(c: g.Contract, shape: tuple[int, ...], at: Sequence[Index]) -> Node:
    names = mapping(c.shape, at)
    return g.contract(
        c.a,
        c.b,
        shape,
        c.reduced,
        tuple(ix.substitute(e, names) for e in c.a_index),
        tuple(ix.substitute(e, names) for e in c.b_index),
        ix.substitute_conds(c.a_valid, names),
        ix.substitute_conds(c.b_valid, names),
        c.family,
        c.dtype,
    )


def _softmax(x: Node, axis: int) -> Node:
    f = g.unary("exp", x)
    total = g.insert_expanded(g.reduce("sum", f, (axis,)), (axis,), x.shape)
    return g.binary("div", f, total)


def _pool(x: Node, size: int) -> Node:
    """The maxima of whole windows along the last axis; what is left over is dropped."""
    *outer, extent = x.shape
    shape = (*outer, extent // size, size)
    *lead, j, k = ix.axes(shape)
    return g.reduce("max", g.view(x, shape, (*lead, j * size + k)), (len(shape) - 1,))


def _partly_read(draw: Draw) -> Node:
    x = draw.tensor((3, 4, draw.pick((7, 11))))
    y = convolution(x, draw.tensor((4, 4, 3)), padding=1)
    rows = g.reduce("sum", g.unary("exp", draw.tensor((6, 5))), (1,))
    first = g.view(rows, (2,), (ix.axes((2,))[0] + draw.pick((0, 3)),))
    n = draw.extent(2, 4)
    part = g.view(_softmax(y, 1), (3, 4, n), ix.axes((3, 4, n)))
    return draw.pick((_pool(_softmax(y, 1), 4), first, part))


def _read_in_full(draw: Draw) -> Iterator[Node]:
    x = draw.tensor((3, 4, 8))
    yield _pool(_softmax(x, 1), 4)
    y = _softmax(draw.tensor((6, 5)), 1)
    first = g.view(y, (2, 5), ix.axes((2, 5)))
    yield g.binary("add", y, g.expand(g.keep_axes(g.reduce("max", first, (0,)), (0,)), (6, 5)))
    whole = g.unary("tanh", matmul(draw.tensor((6, 5)), draw.tensor((5, 4))))
    i, j = ix.axes((2, 4))
    yield g.view(whole, (2, 4), (i * 5, j))


RULES = (
    Rule(
        "unread-border",
        "view(f(x)) = view(f(x inside the box that the view reads))",
        "exact",
        (g.View,),
        _crop_unread,
        "a tenth or more of f(x) is outside the box and used nowhere",
        _partly_read,
        _read_in_full,
    ),
)
