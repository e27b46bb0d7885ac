"""Rules about pointwise arithmetic: identities, inverse functions, signs and choices.

Constants and casts are in `constants`, products and sums of many tensors in `collect`. Nothing here
looks at views or reductions.
"""

from collections.abc import Iterator

from fusewright.ir import graph as g
from fusewright.ir.graph import Node, Scalar
from fusewright.ir.scalar import OPS

from .build import is_op, like, split_const, value_of
from .range import interval, is_finite
from .rule import Env, Rule
from .samples import Draw

INF = float("inf")
# From here on tanh(log1p(y)) is 1 in every type: the square of y does not overflow before.
LARGE_TANH = 2.0**40
# From here on tanh(log1p(exp(x))) and tanh(x) differ by less than float64 can hold of 1.
SOFTPLUS_IS_X = 13.0

# (op, value): x op value = x, bit for bit. Adding 0.0 is not here: it turns -0.0 into 0.0.
_NEUTRAL: dict[str, tuple[Scalar, ...]] = {
    "mul": (1,),
    "div": (1,),
    "sub": (0.0,),
    "pow": (1,),
    "floor_div": (),
    "maximum": (-INF,),
    "minimum": (INF,),
    "logical_and": (True,),
    "logical_or": (False,),
    "logical_xor": (False,),
    "bitwise_and": (-1,),
    "bitwise_or": (0,),
    "bitwise_xor": (0,),
    "shift_left": (0,),
    "shift_right": (0,),
}


# -------------------------------------------------------------------------------------- identities


def _neutral(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Binary)
    for x, c in ((node.a, value_of(node.b)), (node.b, value_of(node.a))):
        if c is None or (x is node.b and not OPS[node.op].commutative):
            continue
        if node.op == "sub" and c == 0 and str(c).startswith("-"):
            return None
        whole = node.dtype.kind == "int" and node.op == "add" and c == 0
        if whole or any(c == value for value in _NEUTRAL.get(node.op, ())):
            return x
    return None


def _with_neutral(draw: Draw) -> Node:
    x = draw.tensor()
    op, c = draw.pick((("mul", 1.0), ("div", 1.0), ("sub", 0.0), ("pow", 1.0), ("maximum", -INF)))
    if op == "mul" and draw.chance():
        return g.binary(op, draw.like(c, x), x)
    return g.binary(op, x, draw.like(c, x))


def _almost_neutral(draw: Draw) -> Iterator[Node]:
    x = draw.tensor()
    yield g.binary("sub", draw.like(0.0, x), x)
    yield g.binary("div", draw.like(1.0, x), x)
    yield g.binary("pow", draw.like(1.0, x), x)
    yield g.binary("maximum", x, draw.like(0.0, x))


def _add_zero(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Binary)
    split = split_const(node) if node.op == "add" and node.dtype.is_float else None
    if split is not None and split[1] == 0:
        return split[0]
    if node.op == "sub" and node.dtype.is_float and value_of(node.a) == 0:
        return g.unary("neg", node.b)
    return None


def _plus_zero(draw: Draw) -> Node:
    x = draw.tensor()
    zero = draw.like(0.0, x)
    return draw.pick((g.binary("add", x, zero), g.binary("add", zero, x)))


def _plus_something(draw: Draw) -> Iterator[Node]:
    x = draw.tensor()
    yield g.binary("add", x, draw.like(1e-300, x))


def _times_zero(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Binary)
    if node.op == "mul" and (split := split_const(node)) is not None and split[1] == 0:
        return like(0, node) if is_finite(split[0], env) else None
    if node.op == "div" and value_of(node.a) == 0 and is_finite(node, env):
        return like(0, node)
    return None


def _zero_product(draw: Draw) -> Node:
    x = g.unary("tanh", draw.tensor())
    return g.binary("mul", x, draw.like(0.0, x))


def _zero_times_infinite(draw: Draw) -> Iterator[Node]:
    x = draw.tensor((3, 3))
    positive = g.binary("gt", x, draw.like(0.0, x))
    masked = g.where(positive, x, draw.like(-INF, x))
    yield g.binary("mul", masked, draw.like(0.0, x))
    yield g.binary("div", draw.like(0.0, x), draw.tensor((3, 3)))


def _self(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Binary)
    if node.a != node.b:
        return None
    match node.op:
        case "maximum" | "minimum" | "fmax" | "fmin" | "logical_and" | "logical_or":
            return node.a
        case "bitwise_and" | "bitwise_or":
            return node.a
        case "sub" if is_finite(node.a, env):
            return like(0, node)
        case "div" if is_finite(node.a, env) and interval(node.a, env).excludes_zero:
            return like(1, node)
        case _:
            return None


def _with_itself(draw: Draw) -> Node:
    x = g.unary(draw.pick(("tanh", "exp")), draw.tensor())
    if x.kind == "exp" and draw.chance():
        return g.binary("div", x, x)
    return g.binary(draw.pick(("sub", "maximum", "minimum")), x, x)


def _with_itself_infinite(draw: Draw) -> Iterator[Node]:
    x = g.unary("log", g.unary("abs", draw.tensor()))
    yield g.binary("sub", x, x)
    yield g.binary("div", x, x)


def _unary_pair(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Unary)
    inner = node.x
    if not isinstance(inner, g.Unary):
        return None
    if node.op == inner.op and node.op in ("neg", "logical_not", "bitwise_not"):
        return inner.x
    if node.op == inner.op and OPS[node.op].idempotent:
        return inner
    if node.op == "abs" and inner.op == "neg":
        return g.unary("abs", inner.x)
    if inner.op == "neg" and node.op in ("cos", "cosh"):
        return g.unary(node.op, inner.x)
    return None


def _twice(draw: Draw) -> Node:
    outer, inner = draw.pick((("neg", "neg"), ("abs", "abs"), ("abs", "neg"), ("floor", "floor")))
    return g.unary(outer, g.unary(inner, draw.tensor()))


def _not_twice(draw: Draw) -> Iterator[Node]:
    yield g.unary("floor", g.unary("round", g.unary("tanh", draw.tensor())))
    yield g.unary("sqrt", g.unary("sqrt", draw.positive()))


def _inverse(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Unary)
    pairs = {"log": "exp", "log2": "exp2", "log1p": "expm1", "atanh": "tanh", "asinh": "sinh"}
    inner = node.x
    return inner.x if isinstance(inner, g.Unary) and pairs.get(node.op) == inner.op else None


def _log_of_exp(draw: Draw) -> Node:
    outer, inner = draw.pick((("log", "exp"), ("log2", "exp2"), ("log1p", "expm1")))
    return g.unary(outer, g.unary(inner, draw.tensor()))


def _no_inverse(draw: Draw) -> Iterator[Node]:
    yield g.unary("exp", g.unary("log", draw.tensor()))
    yield g.unary("tanh", g.unary("atanh", draw.tensor()))
    yield g.unary("log", g.unary("exp2", draw.tensor()))


# ------------------------------------------------------------------------------------------- signs


def _signs(node: Node, env: Env) -> Node | None:
    match node:
        case g.Unary(op="neg", x=g.Binary(op="mul" | "div" as op, a=a, b=b)):
            if (c := value_of(b)) is not None:
                return g.binary(op, a, like(-c, b))
        case g.Binary(op="add" | "sub" as op, a=a, b=g.Unary(op="neg", x=y)):
            return g.binary("sub" if op == "add" else "add", a, y)
        case g.Binary(op="add", a=g.Unary(op="neg", x=x), b=b):
            return g.binary("sub", b, x)
        case g.Binary(op="mul" | "div" as op, a=g.Unary(op="neg", x=x), b=b):
            if isinstance(b, g.Unary) and b.op == "neg":
                return g.binary(op, x, b.x)
            if (c := value_of(b)) is not None and node.dtype.is_float:
                return g.binary(op, x, like(-c, b))
        case _:
            return None
    return None


def _negated(draw: Draw) -> Node:
    x, y = draw.tensor((3, 2)), draw.tensor((3, 2))
    neg = g.unary("neg", x)
    return draw.pick(
        (
            g.binary("add", y, neg),
            g.binary("sub", y, neg),
            g.binary("add", neg, y),
            g.binary("mul", neg, g.unary("neg", y)),
            g.binary("mul", neg, draw.like(draw.number(), x)),
            g.unary("neg", g.binary("mul", x, draw.like(draw.number(), x))),
        )
    )


def _not_negated(draw: Draw) -> Iterator[Node]:
    x, y = draw.tensor((3,)), draw.tensor((3,))
    yield g.binary("sub", g.unary("neg", x), y)
    yield g.binary("mul", g.unary("neg", x), y)


def _negated_difference(node: Node, env: Env) -> Node | None:
    match node:
        case g.Unary(op="neg", x=g.Binary(op="sub", a=a, b=b)):
            return g.binary("sub", b, a)
        case _:
            return None


def _minus_difference(draw: Draw) -> Node:
    return g.unary("neg", g.binary("sub", draw.tensor((3, 2)), draw.tensor((3, 2))))


def _kept_difference(draw: Draw) -> Iterator[Node]:
    d = g.binary("sub", draw.tensor((3, 2)), draw.tensor((3, 2)))
    yield g.binary("mul", g.unary("neg", d), g.unary("exp", d))


# ------------------------------------------------------------------------------------------ choices


def _choice(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Where)
    if node.a == node.b:
        return node.a
    if (c := value_of(node.cond)) is not None:
        return node.a if c else node.b
    if is_op(node.cond, "logical_not"):
        return g.where(node.cond.operands[0], node.b, node.a)
    for x, same in ((node.a, True), (node.b, False)):
        if isinstance(x, g.Where) and x.cond == node.cond:
            taken = x.a if same else x.b
            return g.where(node.cond, taken, node.b) if same else g.where(node.cond, node.a, taken)
    return None


def _settled_choice(draw: Draw) -> Node:
    x, y = draw.tensor((3, 2)), draw.tensor((3, 2))
    test = g.binary("lt", x, y)
    return draw.pick(
        (
            g.where(test, x, x),
            g.where(g.const(draw.chance(), test.dtype, (3, 2)), x, y),
            g.where(g.unary("logical_not", test), x, y),
            g.where(test, g.where(test, x, y), y),
        )
    )


def _open_choice(draw: Draw) -> Iterator[Node]:
    x, y = draw.tensor((3, 2)), draw.tensor((3, 2))
    yield g.where(g.binary("lt", x, y), g.where(g.binary("le", x, y), x, y), y)


# --------------------------------------------------------------------------- tangents of logarithms


def _tanh_of_log(node: Node, env: Env) -> Node | None:
    inner = node.operands[0]
    if not (isinstance(node, g.Unary) and node.op == "tanh" and node.dtype.bytes >= 4):
        return None
    if isinstance(inner, g.Where) and _is_softplus(inner):
        inner = inner.b
    if not (isinstance(inner, g.Unary) and inner.op == "log1p" and interval(inner.x, env).lo >= 0):
        return None
    y = g.binary("minimum", inner.x, like(LARGE_TANH, node))
    two = like(2.0, node)
    product = g.binary("mul", y, g.binary("add", y, two))
    return g.binary("div", product, g.binary("add", product, two))


def _is_softplus(x: g.Where) -> bool:
    """Whether x is `v if v > t else log1p(exp(v))` with a t above which tanh sees no difference.

    tanh(v) and tanh(log1p(exp(v))) differ by about 4·exp(-3·v).
    """
    if not is_op(x.cond, "gt") or not is_op(x.b, "log1p"):
        return False
    v, bound = x.cond.operands
    limit = value_of(bound)
    grows = is_op(x.b.operands[0], "exp") and x.b.operands[0].operands[0] == v
    return grows and x.a == v and limit is not None and limit >= SOFTPLUS_IS_X


def _softplus(x: Node, limit: float) -> Node:
    test = g.binary("gt", x, like(limit, x))
    return g.where(test, x, g.unary("log1p", g.unary("exp", x)))


def _mish(draw: Draw) -> Node:
    x = draw.tensor()
    return g.unary("tanh", draw.pick((g.unary("log1p", g.unary("exp", x)), _softplus(x, 20.0))))


def _tanh_of_any_log(draw: Draw) -> Iterator[Node]:
    yield g.unary("tanh", _softplus(draw.tensor(), 2.0))
    yield g.unary("tanh", g.unary("log1p", draw.tensor()))
    yield g.unary("tanh", g.unary("log", g.unary("exp2", draw.tensor())))


_B, _U = (g.Binary,), (g.Unary,)

RULES = (
    Rule(
        "neutral-operand",
        "x·1 = x/1 = x−0 = x¹ = max(x, −∞) = x",
        "exact",
        _B,
        _neutral,
        "the operand is a constant of the program",
        _with_neutral,
        _almost_neutral,
    ),
    Rule(
        "add-zero",
        "x + 0 = x; 0 − x = −x",
        "finite",
        _B,
        _add_zero,
        "the sign of a zero result may change",
        _plus_zero,
        _plus_something,
    ),
    Rule(
        "times-zero",
        "x·0 = 0",
        "finite",
        _B,
        _times_zero,
        "no infinity arises in x by the program itself (a mask, a logarithm, a division)",
        _zero_product,
        _zero_times_infinite,
    ),
    Rule(
        "with-itself",
        "x − x = 0; x/x = 1; max(x, x) = min(x, x) = x and x = x",
        "finite",
        _B,
        _self,
        "no infinity arises in x by the program itself; for x/x the program makes x nonzero",
        _with_itself,
        _with_itself_infinite,
    ),
    Rule(
        "unary-pair",
        "−(−x) = x; f(f(x)) = f(x) for idempotent f; |−x| = |x|",
        "exact",
        _U,
        _unary_pair,
        "",
        _twice,
        _not_twice,
    ),
    Rule(
        "tanh-of-log1p",
        "tanh(log1p(y)) = y·(y + 2) / (y·(y + 2) + 2)",
        "reassociate",
        _U,
        _tanh_of_log,
        "the program makes y at least 0",
        _mish,
        _tanh_of_any_log,
    ),
    Rule(
        "inverse-pair",
        "log(exp(x)) = x, and so for log2, log1p, atanh, asinh",
        "finite",
        _U,
        _inverse,
        "the inner function maps every number into the outer's domain",
        _log_of_exp,
        _no_inverse,
    ),
    Rule(
        "signs",
        "x + (−y) = x − y; (−x)·(−y) = x·y; −(x·c) = x·(−c)",
        "exact",
        (g.Unary, g.Binary),
        _signs,
        "",
        _negated,
        _not_negated,
    ),
    Rule(
        "negated-difference",
        "−(x − y) = y − x",
        "finite",
        _U,
        _negated_difference,
        "the difference is used nowhere else; the sign of a zero result may change",
        _minus_difference,
        _kept_difference,
    ),
    Rule(
        "settled-choice",
        "where(true, x, y) = x; where(p, x, x) = x; where(¬p, x, y) = where(p, y, x)",
        "exact",
        (g.Where,),
        _choice,
        "",
        _settled_choice,
        _open_choice,
    ),
)
