"""What scans give at places moved along their axis, as scans of moved operands. No rule lives here.

A scan has nothing before its first element, so it commutes with whatever moves it away from where
it starts: `pad(scan(x)) = scan(pad(x))` with the fold of nothing as padding, and a part that holds
the start is the scan of that part. A scan that comes one element late is an exclusive one, whose
operand stays where it was. Pointwise work over a scan moves with it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir.graph import Node, Scalar, Shape
from fusewright.ir.index import Conds, Index, Var
from fusewright.ir.scalar import identity
from fusewright.target.cost import is_pointwise, reaches_scan

from .build import mapping, pointwise, through_view, value_of

# Pointwise operations between a moved scan and the slices of its operands.
DEPTH = 16


@dataclass(frozen=True, slots=True)
class Window:
    """A scan at `index` over `shape`, where `valid` holds; `axis` of `shape` walks the scanned one.

    `reverse`: the way the scan runs in `shape`. `begin` and `end`: the places of its two ends along
    `axis`, which may lie outside; `low` and `high`: the first and last that `valid` admits; `rest`:
    what it says of other axes.
    """

    scan: g.Scan
    shape: Shape
    index: tuple[Index, ...]
    axis: int
    reverse: bool
    begin: int
    end: int
    low: int
    high: int
    rest: Conds

    @property
    def extent(self) -> int:
        return self.shape[self.axis]

    @property
    def gap(self) -> int:
        """Places before the scan's first element, in its own direction."""
        return self.extent - 1 - self.end if self.reverse else self.begin

    def is_whole(self, fill: Scalar) -> bool:
        """Whether `fill` outside of `valid` is what the moved scan gives there anyway."""
        admitted = (0, self.end) if self.reverse else (self.begin, self.extent - 1)
        return (self.low, self.high) == admitted and is_nothing(fill, self.scan)


def is_nothing(value: Scalar | None, s: g.Scan) -> bool:
    """Whether `value` is the fold of nothing; no position is."""
    return s.op not in ("argmax", "argmin") and value == identity(s.op, s.dtype)


def window(s: g.Scan, shape: Shape, index: Sequence[Index], valid: Conds) -> Window | None:
    """The window, if it walks the scanned axis by steps of one and repeats nothing."""
    along, extent = index[s.axis], s.shape[s.axis]
    others = ix.variables(*index[: s.axis], *index[s.axis + 1 :])
    if len(ix.variables(along)) != 1 or ix.variables(along)[0] in others:
        return None
    (v,) = ix.variables(along)
    start, factor = ix.parts(along)[0], ix.coefficient(along, v)
    bounds = _interval([c for c in valid if v in ix.variables(c.x)], v)
    wide = v.extent > 2 * extent or prod(shape) * extent > s.size * v.extent
    if factor not in (1, -1) or bounds is None or wide:
        return None
    ends = (-start, extent - 1 - start) if factor == 1 else (start - extent + 1, start)
    rest = tuple(c for c in valid if v not in ix.variables(c.x))
    axis, reverse = ix.axes(shape).index(v), s.reverse != (factor == -1)
    return Window(s, shape, tuple(index), axis, reverse, *ends, *bounds, rest)


def _interval(conds: Sequence[ix.Cond], v: Var) -> tuple[int, int] | None:
    """The first and last value of `v` that the conditions admit, if they bound only it."""
    low, high = 0, v.extent - 1
    for c in conds:
        constant, terms = ix.parts(c.x)
        if c.kind != "ge" or terms not in (((1, v),), ((-1, v),)):
            return None
        low, high = (max(low, -constant), high) if terms[0][0] == 1 else (low, min(high, constant))
    return low, high


def rescanned(w: Window) -> Node | None:
    """The scan of the moved operand; None where the window leaves out where the scan starts."""
    s, n = w.scan, w.extent
    kept = w.begin == 0 and w.gap == 0 and w.reverse == s.reverse
    if w.gap < 0 or (s.op in ("argmax", "argmin") and not kept):
        return None
    late = w.gap == 1 and not s.exclusive
    step = 0 if not late else -1 if w.reverse else 1
    at = ix.axes(w.shape)[w.axis]
    index = tuple(ix.substitute(e, {at: at + step}) for e in w.index)
    unread = int(s.exclusive or late)  # the last element in the scan's direction
    first, last = (unread, n - 1) if w.reverse else (0, n - 1 - unread)
    covered = w.begin - step <= first and last <= w.end - step
    inside = ix.inside(index[s.axis], s.shape[s.axis])
    valid, spare = (w.rest, inside) if covered else (ix.conjunction((*w.rest, *inside)), ())
    x = read(s.x, w.shape, index, valid, spare, identity(s.op, s.x.dtype))
    return g.scan(s.op, x, w.axis, reverse=w.reverse, exclusive=s.exclusive or late)


def read(
    x: Node, shape: Shape, index: Sequence[Index], valid: Conds, spare: Conds, none: Scalar
) -> Node:
    """`x` at `index`, `none` where conditions fail; `spare` ones fail where nobody looks.

    Those are dropped where something can be read there: the larger tensor that x is a slice of.
    """
    anything = _anything(x, shape, index) if spare and not valid else None
    if anything is not None:
        return anything
    return through_view(x, shape, index, ix.conjunction((*valid, *spare)), none)


def _anything(x: Node, shape: Shape, index: Sequence[Index]) -> Node | None:
    """`x` at `index`, and something readable where that is outside of x; None if nothing is."""

    def leaf(y: Node) -> Node | None:
        below, at = y, tuple(index)
        if isinstance(y, g.View) and not y.valid:
            inner = mapping(y.shape, index)
            below, at = y.x, tuple(ix.substitute(e, inner) for e in y.index)
        fits = all(0 <= e.lo and e.hi < n for e, n in zip(at, below.shape, strict=True))
        return through_view(below, shape, at) if fits else None

    return _over(x, shape, leaf, {}, DEPTH)


def _over(
    x: Node,
    shape: Shape,
    leaf: Callable[[Node], Node | None],
    known: dict[Node, Node | None],
    depth: int,
) -> Node | None:
    """The pointwise work of `x` over `shape`, from what `leaf` makes of what it works on."""
    if x not in known:
        if isinstance(x, g.Const):
            known[x] = g.const(x.value, x.dtype, shape)
        elif is_pointwise(x):
            below = [_over(o, shape, leaf, known, depth - 1) if depth else None for o in x.operands]
            known[x] = None if None in below else pointwise(x, below)  # type: ignore[arg-type]
        else:
            known[x] = leaf(x)
    return known[x]


def seen(x: Node, shape: Shape, index: Sequence[Index], valid: Conds, fill: Scalar) -> Node | None:
    """`x`, pointwise work over scans, at `index` over `shape`, `fill` where `valid` fails."""
    if isinstance(x, g.View) and not x.valid:
        inner = mapping(x.shape, index)
        return seen(x.x, shape, [ix.substitute(e, inner) for e in x.index], valid, fill)
    out = at_places(x, shape, index, valid)
    whole = window(x, shape, index, valid) if isinstance(x, g.Scan) else None
    if out is None or not valid or (whole is not None and whole.is_whole(fill)):
        return out
    return g.view(out, shape, ix.axes(shape), valid, fill)


def at_places(x: Node, shape: Shape, index: Sequence[Index], valid: Conds) -> Node | None:
    """The same without `fill`: anything where `valid` fails. None where scans cannot be moved."""

    def leaf(y: Node) -> Node | None:
        if isinstance(y, g.Scan):
            w = window(y, shape, index, valid)
            return None if w is None else rescanned(w)
        if isinstance(y, g.View) and not y.valid and reaches_scan(y):
            inner = mapping(y.shape, index)
            return at_places(y.x, shape, [ix.substitute(e, inner) for e in y.index], valid)
        return through_view(y, shape, index, valid, y.fill if isinstance(y, g.View) else 0)

    return _over(x, shape, leaf, {}, DEPTH)


def without_first(x: Node, axis: int, reverse: bool, op: str) -> Node | None:
    """`x` one element nearer to where a scan starts, if what is there first is the fold of nothing.

    What comes last is not said: an exclusive scan does not look at it.
    """
    if x.shape[axis] < 2:
        return None
    match x:
        case g.Cast():
            inner = without_first(x.x, axis, reverse, op)
            same = identity(op, x.x.dtype) == identity(op, x.dtype)
            return g.cast(inner, x.dtype) if inner is not None and same else None
        case g.Concat() if x.axis == axis and len(x.xs) == 2:
            return _behind_gap(x, x.xs, axis, reverse, op)
        case g.View() if x.valid and x.fill == identity(op, x.dtype):
            return _unpadded(x, axis, -1 if reverse else 1, op)
        case g.View() if isinstance(x.x, g.Concat) and x.x.axis == axis and len(x.x.xs) == 2:
            parts = _shortened(x, x.x, axis, reverse)
            return None if parts is None else _behind_gap(x, parts, axis, reverse, op)
        case _:
            return None


def _behind_gap(x: Node, parts: Sequence[Node], axis: int, reverse: bool, op: str) -> Node | None:
    gap, part = reversed(parts) if reverse else parts
    none = identity(op, x.dtype)
    if gap.shape[axis] != 1 or value_of(gap) != none:
        return None
    index = list(ix.axes(x.shape))
    index[axis] = index[axis] - int(reverse)
    return read(part, x.shape, index, (), ix.inside(index[axis], part.shape[axis]), none)


def _shortened(x: g.View, whole: g.Concat, axis: int, reverse: bool) -> Sequence[Node] | None:
    """The parts of a concatenation of which `x` shows all but what a scan meets last."""
    n, missing = x.shape[axis], whole.shape[axis] - x.shape[axis]
    wanted = list(x.axes)
    wanted[axis] = wanted[axis] + (missing if reverse else 0)
    gap, part = reversed(whole.xs) if reverse else whole.xs
    if list(x.index) != wanted or gap.shape[axis] != 1 or n < 2:
        return None
    shape = (*x.shape[:axis], n - 1, *x.shape[axis + 1 :])
    index = list(ix.axes(shape))
    index[axis] = index[axis] + (missing if reverse else 0)
    rest = through_view(part, shape, index)
    return (rest, gap) if reverse else (gap, rest)


def _unpadded(x: g.View, axis: int, step: int, op: str) -> Node | None:
    at = x.axes[axis]
    bounds = _interval([c for c in x.valid if at in ix.variables(c.x)], at)  # type: ignore[arg-type]
    if bounds is None or (bounds[0] if step == 1 else x.shape[axis] - 1 - bounds[1]) != 1:
        return None
    moved = {at: at + step}
    index = [ix.substitute(e, moved) for e in x.index]
    valid = ix.substitute_conds(x.valid, moved)
    inside = (c for e, n in zip(index, x.x.shape, strict=True) for c in ix.inside(e, n))
    spare = ix.conjunction(c for c in inside if at in ix.variables(c.x))
    return read(x.x, x.shape, index, valid, spare, identity(op, x.dtype))
