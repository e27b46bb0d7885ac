"""Rules about constants of the program, powers with a constant exponent, and casts.

A constant is a number in the program, never the value of a parameter.
"""

from collections.abc import Iterator

from fusewright.ir import graph as g
from fusewright.ir.dtypes import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, INT32, DType, compute_type
from fusewright.ir.graph import Node, Scalar

from .build import like, split_const, value_of
from .numerics import INF, fold, is_normal, is_power_of_two, quotient, stored, wrapped
from .rule import Env, Rule
from .samples import Draw


def _merge_factors(node: Node, env: Env) -> Node | None:
    outer, inner = _factor(node), None
    if outer is not None:
        inner = _factor(outer[0])
    if outer is None or inner is None:
        return None
    (x, c, over), d = inner, outer[1]
    if node.dtype.kind == "int":
        product = wrapped(int(c) * int(d), node.dtype)
        return None if over or outer[2] else g.binary("mul", x, like(product, x))
    numerator, denominator = (d, c) if over and not outer[2] else (c, d)
    if outer[2] or over:
        if outer[2] and over:
            factor = c * d
            return (
                None if not is_normal(factor, node.dtype) else g.binary("div", x, like(factor, x))
            )
        if denominator == 0:
            return None
        factor = quotient(numerator, denominator)
    else:
        factor = c * d
    return g.binary("mul", x, like(factor, x)) if is_normal(factor, node.dtype) else None


def _factor(x: Node) -> tuple[Node, Scalar, bool] | None:
    """(y, c, False) when x is y * c, (y, c, True) when it is y / c, for a finite constant c."""
    if isinstance(x, g.Unary) and x.op == "neg" and x.dtype.is_float:
        return x.x, -1.0, False
    if not isinstance(x, g.Binary) or x.op not in ("mul", "div"):
        return None
    if x.op == "mul":
        split = split_const(x)
        found = None if split is None else (*split, False)
    else:
        c = value_of(x.b)
        found = None if c is None else (x.a, c, True)
    if found is None or found[1] in (INF, -INF) or found[1] != found[1]:
        return None
    return found


def _two_factors(draw: Draw) -> Node:
    x = draw.tensor()
    for _ in range(2):
        x = g.binary(draw.pick(("mul", "div")), x, draw.like(draw.number(), x))
    return x


def _unmergeable_factors(draw: Draw) -> Iterator[Node]:
    x = draw.tensor(dtype=FLOAT32)
    tiny = draw.like(1e-30, x)
    yield g.binary("mul", g.binary("mul", x, tiny), tiny)
    y = g.binary("mul", draw.tensor((3,)), g.const(0.3, FLOAT64, (3,)))
    yield g.binary("div", g.const(2.0, FLOAT64, (3,)), y)
    n = draw.tensor(dtype=INT32)
    yield g.binary("floor_div", g.binary("mul", n, draw.like(3, n)), draw.like(3, n))


def _merge_terms(node: Node, env: Env) -> Node | None:
    outer = _term(node)
    inner = None if outer is None else _term(outer[0])
    if outer is None or inner is None:
        return None
    x, sign, c = inner
    total = outer[1] * c + outer[2]
    sign *= outer[1]
    if node.dtype.kind == "int":
        total = wrapped(int(total), node.dtype)
    if not is_normal(total, node.dtype):
        return None
    if sign < 0:
        return g.binary("sub", like(total, x), x)
    return g.binary("add", x, like(total, x))


def _term(x: Node) -> tuple[Node, int, Scalar] | None:
    """(y, sign, c) when x is sign * y + c for a finite constant c."""
    if not isinstance(x, g.Binary) or x.op not in ("add", "sub"):
        return None
    if x.op == "add":
        split = split_const(x)
        found = None if split is None else (split[0], 1, split[1])
    elif (c := value_of(x.b)) is not None:
        found = (x.a, 1, -c)
    else:
        c = value_of(x.a)
        found = None if c is None else (x.b, -1, c)
    if found is None or found[2] in (INF, -INF) or found[2] != found[2]:
        return None
    return found


def _two_terms(draw: Draw) -> Node:
    x = draw.tensor()
    for _ in range(2):
        c = draw.like(draw.number(), x)
        x = draw.pick((g.binary("add", x, c), g.binary("sub", x, c), g.binary("sub", c, x)))
    return x


def _unmergeable_terms(draw: Draw) -> Iterator[Node]:
    x = draw.tensor()
    c = draw.like(1.5, x)
    yield g.binary("add", g.unary("abs", g.binary("add", x, c)), c)
    yield g.binary("add", g.binary("mul", x, c), c)


def _exact_reciprocal(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Binary)
    c = value_of(node.b)
    if node.op != "div" or c is None or not is_power_of_two(c):
        return None
    factor = 1.0 / c
    return g.binary("mul", node.a, like(factor, node.b)) if is_normal(factor, node.dtype) else None


def _over_power_of_two(draw: Draw) -> Node:
    x = draw.tensor()
    return g.binary("div", x, draw.like(draw.pick((2.0, 0.25, -8.0)), x))


def _over_other(draw: Draw) -> Iterator[Node]:
    x = draw.tensor()
    yield g.binary("div", x, draw.like(3.0, x))
    yield g.binary("div", x, draw.like(0.0, x))


def _fold_constants(node: Node, env: Env) -> Node | None:
    values = [value_of(o) for o in node.operands]
    if any(v is None for v in values):
        return None
    known = [v for v in values if v is not None]
    match node:
        case g.Where():
            return like(known[1] if known[0] else known[2], node)
        case g.Cast():
            return _cast_constant(node, known[0])
        case g.Unary() | g.Binary():
            value = fold(node.op, node.operands[0].dtype, *known)
            return None if value is None else like(value, node)
        case _:
            return None


def _cast_constant(node: g.Cast, value: Scalar) -> Node | None:
    if node.dtype.kind == "int" and abs(value) >= 2.0 ** (node.dtype.bits - 1):
        return None  # out of range (or NaN): what a conversion gives there is the machine's affair
    if value != value and node.dtype.kind != "float":
        return None
    return like(stored(value, node.dtype), node)


def _constants(draw: Draw) -> Node:
    shape = draw.shape()
    a, b = (g.const(draw.above(), FLOAT64, shape) for _ in range(2))
    test = g.binary("lt", a, b)
    return draw.pick(
        (
            g.binary(draw.pick(("add", "sub", "mul", "div", "pow", "maximum")), a, b),
            g.unary(draw.pick(("exp", "sqrt", "tanh", "neg", "rsqrt")), a),
            test,
            g.where(g.const(draw.chance(), test.dtype, shape), a, b),
            g.cast(a, INT32),
        )
    )


def _undefined_constants(draw: Draw) -> Iterator[Node]:
    yield g.unary("log", g.const(-1.0, FLOAT64, (2,)))
    yield g.cast(g.const(1e30, FLOAT64, (2,)), INT32)


# ------------------------------------------------------------------------------------------- powers


def _cheaper_power(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Binary)
    c = value_of(node.b)
    if node.op != "pow" or c is None:
        return None
    x = node.a
    if c in (2, 3):
        square = g.binary("mul", x, x)
        return square if c == 2 else g.binary("mul", square, x)
    if not x.dtype.is_float:
        return None
    ways = {0.5: "sqrt", -0.5: "rsqrt", -1.0: "reciprocal"}
    if c == -2.0:
        return g.unary("reciprocal", g.binary("mul", x, x))
    if c == 0:
        return like(1, node)
    return g.unary(ways[c], x) if c in ways else None


def _small_power(draw: Draw) -> Node:
    x = draw.positive()
    return g.binary("pow", x, draw.like(draw.pick((2.0, 3.0, 0.5, -0.5, -1.0, -2.0)), x))


def _large_power(draw: Draw) -> Iterator[Node]:
    x = draw.tensor()
    yield g.binary("pow", x, draw.like(2.5, x))
    yield g.binary("pow", draw.like(2.0, x), x)


# -------------------------------------------------------------------------------------------- casts


def _widening(source: DType, target: DType) -> bool:
    """Whether every value of `source` is a value of `target`."""
    if source.kind == "bool":
        return True
    if source.kind == "int" and target.kind == "int":
        if not target.signed:
            return not source.signed and source.bits <= target.bits
        return source.bits - source.signed <= target.bits - 1
    if source.kind == "int" and target.is_float:
        return target.eps > 0 and 2.0 ** -(source.bits - source.signed) >= target.eps
    if not (source.is_float and target.is_float):
        return False
    return source == target or source.bits < target.bits


def _cast_of_cast(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Cast)
    inner = node.x
    if not isinstance(inner, g.Cast) or not _widening(inner.x.dtype, inner.dtype):
        return None
    return g.cast(inner.x, node.dtype)


def _via_wider(draw: Draw) -> Node:
    narrow, wide, last = draw.pick(
        ((FLOAT32, FLOAT64, FLOAT32), (BFLOAT16, FLOAT32, FLOAT64), (INT32, FLOAT64, FLOAT32))
    )
    return g.cast(g.cast(draw.tensor(dtype=narrow), wide), last)


def _via_narrower(draw: Draw) -> Iterator[Node]:
    yield g.cast(g.cast(draw.tensor(), INT32), FLOAT64)
    yield g.cast(g.cast(draw.tensor(dtype=FLOAT16), BFLOAT16), FLOAT32)
    yield g.cast(g.cast(draw.tensor(dtype=INT32), FLOAT32), INT32)


def _round_trip(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Cast)
    inner = node.x
    if not isinstance(inner, g.Cast) or inner.x.dtype != node.dtype:
        return None
    narrowed = inner.dtype.is_float and inner.dtype.bits == 16
    return inner.x if narrowed and node.dtype == compute_type(inner.dtype) else None


def _through_bfloat(draw: Draw) -> Node:
    x = draw.tensor(dtype=FLOAT32)
    return g.cast(g.cast(x, draw.pick((BFLOAT16, FLOAT16))), FLOAT32)


def _through_integer(draw: Draw) -> Iterator[Node]:
    yield g.cast(g.cast(draw.tensor(dtype=FLOAT32), INT32), FLOAT32)
    yield g.cast(g.cast(draw.tensor(dtype=FLOAT64), FLOAT32), FLOAT64)


_B = (g.Binary,)

RULES = (
    Rule(
        "fold-constants",
        "f(c, d) = the constant it is",
        "exact",
        (g.Unary, g.Binary, g.Where, g.Cast),
        _fold_constants,
        "all operands are constants of the program, in the function's domain",
        _constants,
        _undefined_constants,
    ),
    Rule(
        "merge-factors",
        "(x·c)·d = x·(c·d); (x/c)·d = x·(d/c); (x/c)/d = x/(c·d)",
        "reassociate",
        _B,
        _merge_factors,
        "c and d are constants whose product neither overflows nor underflows; int: only products",
        _two_factors,
        _unmergeable_factors,
    ),
    Rule(
        "merge-terms",
        "(x + c) + d = x + (c + d), for sums and differences",
        "reassociate",
        _B,
        _merge_terms,
        "c and d are finite constants",
        _two_terms,
        _unmergeable_terms,
    ),
    Rule(
        "exact-reciprocal",
        "x / c = x · (1/c)",
        "exact",
        _B,
        _exact_reciprocal,
        "c is a power of two",
        _over_power_of_two,
        _over_other,
    ),
    Rule(
        "cheaper-power",
        "x² = x·x; x^½ = √x; x^−1 = 1/x; x^−½ = 1/√x",
        "exact",
        _B,
        _cheaper_power,
        "the exponent is one of those that eager computes in this way itself",
        _small_power,
        _large_power,
    ),
    Rule(
        "cast-of-cast",
        "cast_T(cast_W(x)) = cast_T(x)",
        "exact",
        (g.Cast,),
        _cast_of_cast,
        "W holds every value of x's type",
        _via_wider,
        _via_narrower,
    ),
    Rule(
        "round-trip",
        "float32(bfloat16(x)) = x",
        "reassociate",
        (g.Cast,),
        _round_trip,
        "x is float32 and rounded to a 16-bit float in between: the result is the more precise one",
        _through_bfloat,
        _through_integer,
    ),
)
