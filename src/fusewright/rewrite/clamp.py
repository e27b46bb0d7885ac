"""Rules from interval analysis: clamps that do nothing or decide everything, settled comparisons.

What may be assumed of a value is `range`'s business; nothing is assumed of inputs and parameters.
"""

from collections.abc import Iterator

from fusewright.ir import graph as g
from fusewright.ir.graph import Node, Scalar

from .build import like, split_const, value_of
from .numerics import is_normal
from .range import interval, is_finite
from .rule import Env, Rule
from .samples import Draw
from .shapes import value_at

INF = float("inf")


def _idle(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Binary)
    if node.op not in ("maximum", "minimum"):
        return None
    a, b = interval(node.a, env), interval(node.b, env)
    if node.op == "minimum":
        first, second = a.hi <= b.lo, b.hi <= a.lo
    else:
        first, second = a.lo >= b.hi, b.lo >= a.hi
    if first and value_of(node.a) is None:
        return node.a
    if second:
        return node.b
    return node.a if first else None


def _clamped_again(draw: Draw) -> Node:
    x = draw.tensor()
    sigmoid, square = g.unary("sigmoid", x), g.binary("mul", x, x)
    return draw.pick(
        (
            g.binary("maximum", sigmoid, like(0.0, x)),
            g.binary("minimum", sigmoid, like(1.5, x)),
            g.binary("maximum", like(-0.25, x), square),
            g.binary("minimum", g.binary("minimum", x, like(0.0, x)), like(0.0, x)),
            g.binary("maximum", g.binary("minimum", x, like(0.0, x)), like(0.5, x)),
            g.binary("minimum", g.unary("exp", x), g.unary("neg", g.unary("cosh", x))),
        )
    )


def _clamped_inside(draw: Draw) -> Iterator[Node]:
    x = draw.tensor()
    yield g.binary("maximum", g.unary("sigmoid", x), like(0.25, x))
    yield g.binary("minimum", g.unary("tanh", x), like(0.9, x))
    yield g.binary("maximum", x, like(-1e300, x))
    yield g.binary("maximum", g.binary("mul", x, g.unary("abs", x)), like(0.0, x))


def _absolute(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Unary)
    if node.op != "abs":
        return None
    x = interval(node.x, env)
    if x.lo >= 0:
        return node.x
    return g.unary("neg", node.x) if x.hi <= 0 else None


def _known_sign(draw: Draw) -> Node:
    x = draw.tensor()
    inside = draw.pick((g.unary("sigmoid", x), g.binary("mul", x, x), g.unary("exp", x)))
    return g.unary("abs", draw.pick((inside, g.unary("neg", inside))))


def _unknown_sign(draw: Draw) -> Iterator[Node]:
    yield g.unary("abs", g.unary("tanh", draw.tensor()))


def _settled(node: Node, env: Env) -> Node | None:
    if isinstance(node, g.Unary) and node.op in ("isnan", "isinf"):
        return g.const(False, node.dtype, node.shape) if is_finite(node.x, env) else None
    if not isinstance(node, g.Binary) or node.op not in _DECIDED:
        return None
    a, b = interval(node.a, env), interval(node.b, env)
    answer = _DECIDED[node.op]
    infinite = b.lo == b.hi and b.lo in (INF, -INF)
    if infinite and is_finite(node.a, env) and node.op in ("eq", "ne"):
        return g.const(node.op == "ne", node.dtype, node.shape)
    if not (is_finite(node.a, env) and is_finite(node.b, env)):
        return None
    if a.hi < b.lo:
        return g.const(answer[0], node.dtype, node.shape)
    if a.lo > b.hi:
        return g.const(answer[1], node.dtype, node.shape)
    if node.op in ("le", "gt") and a.hi <= b.lo:
        return g.const(node.op == "le", node.dtype, node.shape)
    if node.op in ("ge", "lt") and a.lo >= b.hi:
        return g.const(node.op == "ge", node.dtype, node.shape)
    return None


# What the comparison says when the left side is certainly below, and certainly above.
_DECIDED = {
    "lt": (True, False),
    "le": (True, False),
    "gt": (False, True),
    "ge": (False, True),
    "eq": (False, False),
    "ne": (True, True),
}


def _settled_question(draw: Draw) -> Node:
    x = draw.tensor()
    return draw.pick(
        (
            g.binary("lt", g.unary("sigmoid", x), like(2.0, x)),
            g.binary("ge", g.unary("abs", x), like(0.0, x)),
            g.binary("eq", g.unary("tanh", x), like(INF, x)),
            g.binary("gt", like(-1.0, x), g.binary("mul", x, x)),
            g.unary("isnan", g.unary("exp", x)),
            g.unary("isinf", g.binary("add", x, x)),
        )
    )


def _open_question(draw: Draw) -> Iterator[Node]:
    x = draw.tensor((3, 3))
    test = g.binary("gt", x, like(0.0, x))
    masked = g.where(test, x, like(-INF, x))
    yield g.binary("gt", g.unary("sigmoid", x), like(0.5, x))
    yield g.binary("eq", masked, like(-INF, x))
    yield g.unary("isinf", g.unary("log", g.unary("abs", x)))
    yield g.binary("lt", g.unary("exp", x), g.unary("exp", draw.tensor((3, 3))))


# ------------------------------------------------------------------------------- nested and scaled


def _merge_clamps(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Binary)
    if node.op not in ("maximum", "minimum"):
        return None
    outer = split_const(node)
    inner = outer[0] if outer else None
    if outer is None or not isinstance(inner, g.Binary) or inner.op != node.op:
        return None
    split = split_const(inner)
    if split is None:
        return None
    pick = max if node.op == "maximum" else min
    return g.binary(node.op, split[0], like(pick(outer[1], split[1]), node))


def _two_clamps(draw: Draw) -> Node:
    x = draw.tensor()
    op = draw.pick(("maximum", "minimum"))
    return g.binary(op, g.binary(op, x, like(draw.number(), x)), like(draw.number(), x))


def _crossing_clamps(draw: Draw) -> Iterator[Node]:
    x = draw.tensor()
    yield g.binary("minimum", g.binary("maximum", x, like(-0.5, x)), like(0.5, x))


def _scaled_clamp(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Binary)
    factor = _constant_factor(node)
    if factor is None:
        return None
    clamp, c, divides = factor
    if not isinstance(clamp, g.Binary) or clamp.op not in ("maximum", "minimum") or not c:
        return None
    split = split_const(clamp)
    if split is None:
        return None
    bound = split[1] / c if divides else split[1] * c
    if not is_normal(bound, node.dtype):
        return None
    swapped = {"maximum": "minimum", "minimum": "maximum"}
    op = clamp.op if c > 0 else swapped[clamp.op]
    return g.binary(op, g.binary(node.op, split[0], like(c, node)), like(bound, node))


def _constant_factor(node: g.Binary) -> tuple[Node, Scalar, bool] | None:
    if node.dtype.kind != "float" or node.op not in ("mul", "div"):
        return None
    if node.op == "mul" and (split := split_const(node)) is not None:
        return (*split, False)
    c = value_of(node.b)
    return (node.a, c, True) if node.op == "div" and c is not None and abs(c) < INF else None


def _clamp_between_scales(draw: Draw) -> Node:
    x = draw.tensor()
    c = draw.number()
    clamp = g.binary("mul", x, like(c, x))
    for op, bound in (("maximum", -1.3), ("minimum", draw.above()))[: draw.pick((1, 2))]:
        clamp = g.binary(op, clamp, like(bound, x))
    return g.binary("div", clamp, like(c, x))


def _clamp_scaled_once(draw: Draw) -> Iterator[Node]:
    x = draw.tensor()
    yield g.binary("mul", g.binary("maximum", x, like(0.5, x)), like(3.0, x))
    square = g.binary("maximum", g.binary("mul", x, x), like(0.5, x))
    yield g.binary("mul", square, like(0.0, x))


def _leaky(node: Node, env: Env) -> Node | None:
    """A choice between pieces that meet where it switches: one of them, or their maximum."""
    assert isinstance(node, g.Where)
    test = node.cond
    if not isinstance(test, g.Binary) or test.op not in ("gt", "ge", "lt", "le"):
        return None
    x, c = test.a, value_of(test.b)
    if c is None or not node.dtype.is_float:
        return None
    above, below = (node.a, node.b) if test.op in ("gt", "ge") else (node.b, node.a)
    met = value_at(above, x, c)
    if met is None or met != value_at(below, x, c):
        return None
    bounds = interval(x, env)
    if bounds.lo >= c:
        return above
    if bounds.hi <= c:
        return below
    relu = c == 0 and above == x and value_of(below) == 0 and node.a == x
    return g.binary("maximum", x, like(0, x)) if relu else None


def _relu_by_choice(draw: Draw) -> Node:
    x = draw.tensor()
    square = g.binary("mul", x, x)
    y = draw.pick((square, g.unary("neg", square)))
    slope = g.binary("mul", y, like(draw.number(), y))
    test = g.binary(draw.pick(("gt", "ge")), x, like(0.0, x))
    leaky = g.where(g.binary(draw.pick(("gt", "ge", "lt", "le")), y, like(0.0, y)), y, slope)
    return draw.pick((g.where(test, x, like(0.0, x)), leaky))


def _no_relu(draw: Draw) -> Iterator[Node]:
    x = draw.tensor()
    yield g.where(g.binary("gt", x, like(0.0, x)), x, like(1.0, x))
    yield g.where(g.binary("gt", x, like(1.0, x)), x, like(0.0, x))
    yield g.where(g.binary("lt", x, like(0.0, x)), x, like(0.0, x))
    y = g.binary("maximum", x, like(0.5, x))
    slope = g.binary("mul", y, like(0.1, y))
    yield g.where(g.binary("gt", y, like(0.5, y)), y, slope)
    yield g.where(g.binary("gt", x, like(0.0, x)), x, g.binary("mul", x, like(0.1, x)))


_B, _U = (g.Binary,), (g.Unary,)

RULES = (
    Rule(
        "idle-clamp",
        "max(x, c) = x where x ≥ c, = c where x ≤ c; and so for min",
        "finite",
        _B,
        _idle,
        "the bounds of x follow from the program, not from its inputs",
        _clamped_again,
        _clamped_inside,
    ),
    Rule(
        "known-sign",
        "|x| = x where x ≥ 0, −x where x ≤ 0",
        "exact",
        _U,
        _absolute,
        "the sign of x follows from the program",
        _known_sign,
        _unknown_sign,
    ),
    Rule(
        "settled-comparison",
        "x < c is true where x is always below c; a finite x is not infinite",
        "finite",
        (g.Unary, g.Binary),
        _settled,
        "the ranges follow from the program, in which no infinity arises by itself",
        _settled_question,
        _open_question,
    ),
    Rule(
        "merge-clamps",
        "max(max(x, c), d) = max(x, max(c, d)); and so for min",
        "exact",
        _B,
        _merge_clamps,
        "c and d are constants",
        _two_clamps,
        _crossing_clamps,
    ),
    Rule(
        "scaled-clamp",
        "c·max(x, d) = max(c·x, c·d) for c > 0, min for c < 0",
        "reassociate",
        _B,
        _scaled_clamp,
        "the factor meets another one below the clamp",
        _clamp_between_scales,
        _clamp_scaled_once,
    ),
    Rule(
        "relu-by-choice",
        "where(x > 0, x, 0) = max(x, 0); where(x > c, f(x), h(x)) = f(x) for x ≥ c if f(c) = h(c)",
        "finite",
        (g.Where,),
        _leaky,
        "the program makes x at least (or at most) c; NaN stays NaN on the right",
        _relu_by_choice,
        _no_relu,
    ),
)
