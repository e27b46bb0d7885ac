"""Rules about extrema: monotone and quasi-convex functions move out of max, min and argmax.

How a function moves with its operand is `shapes`' business. A padded window is admitted where every
window holds an element: then the fill value never wins.
"""

from collections.abc import Iterator, Mapping
from itertools import product

from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir.graph import Node, Scalar
from fusewright.ir.index import Var
from fusewright.ir.scalar import identity
from fusewright.target.cost import is_pointwise

from .build import dependent_axes, pointwise, through_view
from .range import interval
from .rule import Env, Rule
from .samples import Draw
from .shapes import Curve, Range, curve_of, source_of, step_of

# A border with more positions to look at than this is not examined.
POSITIONS = 1 << 16
OPPOSITE = {"max": "min", "min": "max"}


def _split(node: g.Reduce) -> tuple[g.View | None, Node]:
    """The windows that `node` reduces, if any, and what they are windows of."""
    return (node.x, node.x.x) if isinstance(node.x, g.View) else (None, node.x)


def _is_extremum(node: Node) -> bool:
    return (
        isinstance(node, g.Reduce)
        and node.op in OPPOSITE
        and node.dtype.is_float
        and bool(node.x.size)
        and all(node.x.shape[a] for a in node.axes_reduced)
    )


def _extremum(node: g.Reduce, op: str, x: Node) -> Node:
    """`op` of x over the windows and axes of `node`."""
    windows, _ = _split(node)
    if windows is not None:
        fill = identity(op, x.dtype)
        x = through_view(x, windows.shape, windows.index, windows.valid, fill)
    return g.reduce(op, x, node.axes_reduced)


def _is_full(node: g.Reduce) -> bool:
    """Whether there is no border, or one that fills with what never wins, in no window all."""
    windows, _ = _split(node)
    if windows is None or not windows.valid:
        return True
    return windows.fill == identity(node.op, node.dtype) and _every_window_holds(node, windows)


def _every_window_holds(node: g.Reduce, windows: g.View) -> bool:
    inside = {v for k, v in enumerate(windows.axes) if k in node.axes_reduced}
    groups: list[tuple[set[Var], list[ix.Cond]]] = []
    for c in windows.valid:
        names, conds = set(ix.variables(c.x)), [c]
        for group in [other for other in groups if other[0] & names]:
            groups.remove(group)
            names, conds = names | group[0], group[1] + conds
        groups.append((names, conds))
    return all(_holds_somewhere(sorted(vs, key=lambda v: v.name), cs, inside) for vs, cs in groups)


def _holds_somewhere(names: list[Var], conds: list[ix.Cond], inside: set[ix.Index]) -> bool:
    """Whether, for all values of the other variables, some of those `inside` fulfil `conds`."""
    outer, inner = [v for v in names if v not in inside], [v for v in names if v in inside]
    count = 1
    for v in names:
        count *= v.extent
    if count > POSITIONS:
        return False
    for at in product(*(range(v.extent) for v in outer)):
        fixed = dict(zip(outer, at, strict=True))
        choices = product(*(range(v.extent) for v in inner))
        if not any(_fulfilled(conds, fixed | dict(zip(inner, c, strict=True))) for c in choices):
            return False
    return True


def _fulfilled(conds: list[ix.Cond], at: Mapping[Var, int]) -> bool:
    env: dict[ix.Index, int] = dict(at.items())
    values = [(c.kind, ix.evaluate(c.x, env)) for c in conds]
    return all(v == 0 if kind == "eq" else v >= 0 for kind, v in values)


# ---------------------------------------------------------------------------------------- monotone


def _of_monotone(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Reduce)
    if not _is_extremum(node):
        return None
    _, f = _split(node)
    if not is_pointwise(f) or isinstance(f, g.Where) or not _is_full(node):
        return None
    for k, x in enumerate(f.operands):
        others = [_outside(node, o) for j, o in enumerate(f.operands) if j != k]
        curve = step_of(f, k, lambda n: interval(n, env))
        if curve not in ("rise", "fall") or None in others:
            continue
        inner = _extremum(node, node.op if curve == "rise" else OPPOSITE[node.op], x)
        operands = [o for o in others if o is not None]
        operands.insert(k, inner)
        return pointwise(f, operands)
    return None


def _outside(node: g.Reduce, p: Node) -> Node | None:
    """`p`, an operand below the windows of `node`, over its result; None if it varies in them."""
    windows, _ = _split(node)
    index = node.x.axes if windows is None else windows.index
    depends = dependent_axes(p)
    kept = [v for k, v in enumerate(node.x.axes) if k not in node.axes_reduced]
    names = dict(zip(kept, ix.axes(node.shape), strict=True))
    at = []
    for k, e in enumerate(index):
        if k not in depends:
            at.append(ix.const(0))
            continue
        if any(v not in kept for v in ix.variables(e)) or not 0 <= e.lo <= e.hi < p.shape[k]:
            return None
        at.append(ix.substitute(e, {v: n for v, n in names.items() if isinstance(v, Var)}))
    return through_view(p, node.shape, at)


def _extremum_of_rising(draw: Draw) -> Node:
    x = draw.tensor((4, 6))
    f = draw.pick(
        (
            g.unary(draw.pick(("tanh", "exp", "sigmoid", "neg", "erfc")), x),
            g.binary("add", x, draw.row((4, 6), (0,))),
            g.binary("sub", draw.row((4, 6), (0,)), x),
            g.binary(draw.pick(("mul", "div")), x, draw.like(draw.number(), x)),
            g.binary("mul", g.unary("exp", draw.row((4, 6), (0,))), x),
            g.unary("log", g.unary("exp", g.unary("sin", x))),
        )
    )
    op = draw.pick(("max", "min"))
    return draw.pick((g.reduce(op, f, (1,)), _pool(op, g.unary("tanh", x))))


def _pool(op: str, x: Node, padding: int = 1) -> Node:
    """Windows of three, two apart, along the last axis."""
    rows, extent = x.shape
    shape = (rows, (extent + 2 * padding - 3) // 2 + 1, 3)
    i, j, k = ix.axes(shape)
    at = j * 2 + k - padding
    windows = g.view(x, shape, (i, at), ix.inside(at, extent), identity(op, x.dtype))
    return g.reduce(op, windows, (2,))


def _extremum_of_other(draw: Draw) -> Iterator[Node]:
    x = draw.tensor((4, 6))
    yield g.reduce("max", g.unary("sin", x), (1,))
    yield g.reduce("max", g.binary("add", x, draw.row((4, 6), (1,))), (1,))
    yield g.reduce("max", g.binary("mul", x, draw.row((4, 6), (0,))), (1,))
    yield g.reduce("max", g.unary("log", x), (1,))
    yield g.reduce("sum", g.unary("tanh", x), (1,))
    shape = (4, 3, 2)
    i, j, k = ix.axes(shape)
    at = j * 2 + k
    zeros = g.view(g.unary("cos", x), shape, (i, at), (ix.less(at, 5),), 0.0)
    yield g.reduce("max", zeros, (2,))
    # The last window is empty: its result is -inf, not tanh of it.
    empty = g.view(g.unary("tanh", x), shape, (i, at), (ix.less(at, 4),), -float("inf"))
    yield g.reduce("max", empty, (2,))


# ------------------------------------------------------------------------------------ quasi-convex


def _of_valley(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Reduce)
    if not _is_extremum(node):
        return None
    _, f = _split(node)
    x = source_of(f) if is_pointwise(f) else None
    if x is None or not _is_full(node):
        return None
    curve = curve_of(f, x, lambda n: interval(n, env))
    if curve in ("rise", "fall"):
        op = node.op if curve == "rise" else OPPOSITE[node.op]
        return _at_extremum(f, x, _extremum(node, op, x))
    if curve != ("valley" if node.op == "max" else "hill"):
        return None
    ends = [_at_extremum(f, x, _extremum(node, op, x)) for op in ("max", "min")]
    return g.binary("maximum" if node.op == "max" else "minimum", *ends)


def _at_extremum(f: Node, x: Node, at: Node) -> Node:
    """The pointwise chain `f` of x, computed at `at` instead."""
    done: dict[Node, Node] = {x: at}
    for n in g.topological((f,)):
        if n in done:
            continue
        if isinstance(n, g.Const):
            done[n] = g.const(n.value, n.dtype, at.shape)
        elif is_pointwise(n) and all(o in done for o in n.operands):
            done[n] = pointwise(n, [done[o] for o in n.operands])
    return done[f]


def gelu(x: Node) -> Node:
    """x·Φ(x), Φ the normal distribution."""
    erf = g.unary("erf", g.binary("mul", x, g.const(0.5**0.5, x.dtype, x.shape)))
    one = g.const(1.0, x.dtype, x.shape)
    half = g.binary("mul", x, g.const(0.5, x.dtype, x.shape))
    return g.binary("mul", half, g.binary("add", erf, one))


def _leaky(x: Node, below: Scalar) -> Node:
    zero, c = (g.const(v, x.dtype, x.shape) for v in (0.0, below))
    return g.where(g.binary("gt", x, zero), x, g.binary("mul", x, c))


def _extremum_of_valley(draw: Draw) -> Node:
    x = draw.tensor((3, 64))
    gate = g.binary("add", x, draw.like(3.0, x))
    gate = g.binary("maximum", gate, draw.like(0.0, x))
    gate = g.binary("minimum", gate, draw.like(6.0, x))
    f = draw.pick(
        (
            gelu(x),
            g.binary("mul", x, g.unary("sigmoid", x)),
            g.binary("mul", x, gate),
            g.binary("mul", gelu(x), draw.like(draw.above(), x)),
            g.unary("tanh", gelu(g.binary("add", x, draw.like(draw.number(), x)))),
            _leaky(x, draw.above()),
            _leaky(x, -draw.above()),
        )
    )
    flip = draw.chance()
    return g.reduce("min" if flip else "max", g.unary("neg", f) if flip else f, (1,))


def _extremum_of_hill(draw: Draw) -> Iterator[Node]:
    x = draw.tensor((3, 64))
    yield g.reduce("min", gelu(x), (1,))
    yield g.reduce("min", g.binary("mul", x, g.unary("sigmoid", x)), (1,))
    yield g.reduce("max", g.binary("mul", x, g.unary("sigmoid", g.unary("neg", x))), (1,))
    yield g.reduce("max", g.binary("mul", x, g.unary("sin", x)), (1,))
    zero, two = draw.like(0.0, x), draw.like(2.0, x)
    step = g.where(g.binary("gt", x, zero), x, g.binary("add", x, two))
    yield g.reduce("max", step, (1,))


# -------------------------------------------------------------------------------- positions

# Rounding maps many arguments to one value of the others near their bounds: ties would change.
_STRICT = ("exp", "log", "log2", "neg", "sqrt")


def _position_of_monotone(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.ArgReduce)
    f = node.x
    if not isinstance(f, g.Unary | g.Binary) or (isinstance(f, g.Unary) and f.op not in _STRICT):
        return None
    if f.kind in ("maximum", "minimum") or not f.dtype.is_float:
        return None
    values: Range = lambda n: interval(n, env)  # noqa: E731
    for k, x in enumerate(f.operands):
        fixed = all(node.axis not in dependent_axes(o) for j, o in enumerate(f.operands) if j != k)
        nonzero = f.kind != "mul" or values(f.operands[1 - k]).excludes_zero
        curve: Curve | None = step_of(f, k, values) if fixed and nonzero else None
        if curve not in ("rise", "fall") or node.axis not in dependent_axes(x):
            continue
        up = (curve == "rise") == (node.op == "argmax")
        return g.arg_reduce("argmax" if up else "argmin", x, node.axis)
    return None


def _position_of_softmax(draw: Draw) -> Node:
    x = draw.tensor((4, 6))
    top = g.insert_expanded(g.reduce("max", x, (1,)), (1,), x.shape)
    f = g.unary("exp", g.binary("sub", x, top))
    total = g.insert_expanded(g.reduce("sum", f, (1,)), (1,), x.shape)
    c = draw.like(draw.number(), x)
    f = draw.pick((f, g.binary("div", f, total), g.binary("mul", x, c), g.unary("neg", x)))
    return g.arg_reduce(draw.pick(("argmax", "argmin")), f, 1)


def _position_of_other(draw: Draw) -> Iterator[Node]:
    x = draw.tensor((4, 6))
    yield g.arg_reduce("argmax", g.unary("tanh", x), 1)
    yield g.arg_reduce("argmax", g.binary("maximum", x, draw.like(0.0, x)), 1)
    yield g.arg_reduce("argmax", g.binary("mul", x, draw.row((4, 6), (0,))), 1)
    yield g.arg_reduce("argmax", g.binary("add", x, draw.row((4, 6), (1,))), 1)
    yield g.arg_reduce("argmax", g.binary("mul", x, draw.like(0.0, x)), 1)


_R = (g.Reduce,)

RULES = (
    Rule(
        "extremum-of-monotone",
        "max f(x) = f(max x) for rising f, f(min x) for falling f; and so for min",
        "finite",
        _R,
        _of_monotone,
        "f's other operands do not vary where the maximum is taken, and no window is all border",
        _extremum_of_rising,
        _extremum_of_other,
    ),
    Rule(
        "extremum-of-valley",
        "max f(x) = max(f(max x), f(min x)) where f falls and then rises; min likewise for hills",
        "finite",
        _R,
        _of_valley,
        "f is a function of x and constants whose shape is known: x·gate(x), |x|, pieces",
        _extremum_of_valley,
        _extremum_of_hill,
    ),
    Rule(
        "position-of-monotone",
        "argmax f(x) = argmax x for strictly rising f, argmin x for falling f; and so for argmin",
        "reassociate",
        (g.ArgReduce,),
        _position_of_monotone,
        "f is no function that rounding makes flat; elements that rounding made equal may differ",
        _position_of_softmax,
        _position_of_other,
    ),
)
