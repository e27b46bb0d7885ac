"""Rules about exponentials, logarithms and roots of products, quotients and one another."""

from collections.abc import Iterator
from fractions import Fraction

from fusewright.ir import graph as g
from fusewright.ir.graph import Node

from .build import dependent_axes, drop_axes, is_op, like
from .collect import is_layout, product_factors, product_of, sum_of, sum_terms
from .range import interval
from .rule import Env, Rule
from .samples import Draw


def _below_layout(x: Node) -> Node:
    return x.x if isinstance(x, g.View) and is_layout(x) else x


def _moved_like(x: Node, inner: Node) -> Node:
    """`inner` under the layout of `x`, if that is one."""
    if not isinstance(x, g.View):
        return inner
    return g.view(inner, x.shape, x.index)


# ------------------------------------------------------------------------------------ exp of logs


def _exp_of_log(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Unary)
    inner = node.x
    pairs = {"exp": "log", "exp2": "log2", "expm1": "log1p"}
    if isinstance(inner, g.Unary) and pairs.get(node.op) == inner.op:
        lowest = -1.0 if inner.op == "log1p" else 0.0
        return inner.x if interval(inner.x, env).lo >= lowest else None
    read = sum_terms(inner) if node.op == "exp" and isinstance(inner, g.Binary) else None
    if read is None or read[1]:
        return None
    terms = read[0]
    for term, c in terms.items():
        log = _below_layout(term)
        if abs(c) != 1 or not isinstance(log, g.Unary) or log.op != "log":
            continue
        if interval(log.x, env).lo < 0 or len(terms) < 2:
            continue
        rest = sum_of({t: k for t, k in terms.items() if t != term}, Fraction(0), inner)
        factor = _moved_like(term, log.x)
        op = "mul" if c > 0 else "div"
        return None if rest is None else g.binary(op, g.unary("exp", rest), factor)
    return None


def _exp_and_log(draw: Draw) -> Node:
    x = draw.tensor((4, 6))
    f = g.unary("exp", x)
    total = g.unary("log", g.reduce("sum", f, (1,)))
    shifted = g.binary("sub", x, g.insert_expanded(total, (1,), x.shape))
    pair = g.unary("exp", g.unary("log", g.binary("mul", x, x)))
    return draw.pick((pair, g.binary("add", g.unary("exp", shifted), f)))


def _exp_without_log(draw: Draw) -> Iterator[Node]:
    x, y = draw.tensor((4, 6)), draw.tensor((4, 6))
    yield g.unary("exp", g.unary("log", x))
    yield g.unary("exp", g.binary("add", x, g.unary("log", y)))
    yield g.unary("exp", g.unary("log2", g.unary("abs", x)))
    yield g.unary("exp", g.binary("mul", g.unary("log", g.unary("abs", x)), y))


# ------------------------------------------------------------------------ products of exponentials


def _exp_product(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Binary)
    if node.op not in ("mul", "div") or not node.dtype.is_float:
        return None
    read = product_factors(node)
    if read is None:
        return None
    factors, constant = read
    powers = [(f, p) for f, p in factors if is_op(f, "exp")]
    if len(powers) < 2:
        return None
    exponents: dict[Node, Fraction] = {}
    for f, p in powers:
        exponents[f.operands[0]] = exponents.get(f.operands[0], Fraction(0)) + p
    total = sum_of({t: c for t, c in exponents.items() if c}, Fraction(0), node)
    if total is None:
        return None
    rest = [f for f in factors if f not in powers]
    return product_of([*rest, (g.unary("exp", total), 1)], float(constant), node)


def _two_exponentials(draw: Draw) -> Node:
    x, y = draw.tensor((4, 3)), draw.tensor((4, 3))
    e, f = g.unary("exp", x), g.unary("exp", draw.pick((y, g.unary("neg", x))))
    z = draw.tensor((4, 3))
    return draw.pick(
        (
            g.binary("mul", e, f),
            g.binary("div", e, f),
            g.binary("mul", g.binary("mul", e, z), f),
        )
    )


def _lone_exponentials(draw: Draw) -> Iterator[Node]:
    x, y = draw.tensor((4, 3)), draw.tensor((4, 3))
    e, f = g.unary("exp", x), g.unary("exp", y)
    yield g.binary("mul", g.binary("mul", e, f), g.binary("add", e, f))
    yield g.binary("mul", e, g.unary("exp2", y))
    yield g.binary("add", e, f)


# -------------------------------------------------------------------------------- log of products


def _log_of_product(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Unary)
    x = _below_layout(node.x)
    if node.op != "log" or not (is_op(x, "mul") or is_op(x, "div")):
        return None
    read = product_factors(x)
    if read is None or read[1] <= 0:
        return None
    factors, constant = read
    found = next(((f, p) for f, p in factors if is_op(f, "exp")), None)
    if found is None or len(factors) < 2:
        return None
    rest = [f for f in factors if f != found]
    remaining = g.unary("log", product_of(rest, float(constant), x))
    out = g.binary("add" if found[1] > 0 else "sub", remaining, found[0].operands[0])
    return _moved_like(node.x, out)


def _log_of_softmax(draw: Draw) -> Node:
    x = draw.tensor((4, 6))
    f = g.unary("exp", x)
    total = g.insert_expanded(g.reduce("sum", f, (1,)), (1,), x.shape)
    return g.unary("log", g.binary("div", f, total))


def _log_of_others(draw: Draw) -> Iterator[Node]:
    x, y = draw.tensor((4, 6)), draw.tensor((4, 6))
    yield g.unary("log", g.binary("mul", g.unary("abs", x), g.unary("abs", y)))
    yield g.unary("log", g.binary("add", g.unary("exp", x), g.unary("exp", y)))


# -------------------------------------------------------------------------------- shifted sums

# exp of what lies within these bounds, summed however often, neither over- nor underflows.
EXPONENT = 32.0


def _unshifted(total: Node, env: Env) -> tuple[Node, Node, Node] | None:
    """(Σ exp(x), exp(x), m) for `total`, a layout of Σ exp(x − m), where m is the same all along
    the sum (and given without the summed axes) and the program bounds x."""
    total = _below_layout(total)
    if not (isinstance(total, g.Reduce) and total.op == "sum" and is_op(total.x, "exp")):
        return None
    shifted = total.x.operands[0]
    if not isinstance(shifted, g.Binary) or shifted.op != "sub":
        return None
    x, m = shifted.operands
    bounds = interval(x, env)
    constant = not any(a in dependent_axes(m) for a in total.axes_reduced)
    if not constant or bounds.lo < -EXPONENT or bounds.hi > EXPONENT or x.dtype.bytes < 4:
        return None
    f = g.unary("exp", x)
    return g.reduce("sum", f, total.axes_reduced), f, drop_axes(m, total.axes_reduced)


def _bounded_shift(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Binary)
    if node.op == "add":
        for log, m in ((node.a, node.b), (node.b, node.a)):
            found = _unshifted(log.x, env) if isinstance(log, g.Unary) and log.op == "log" else None
            if found is not None and _below_layout(m) == found[2]:
                return g.unary("log", _moved_like(log.operands[0], found[0]))
        return None
    found = _unshifted(node.b, env) if node.op == "div" else None
    if found is None or node.a != _below_layout(node.b).operands[0]:
        return None
    return g.binary("div", found[1], _moved_like(node.b, found[0]))


def _bounded_softmax(draw: Draw) -> Node:
    x = g.unary(draw.pick(("tanh", "sigmoid")), draw.tensor((4, 6)))
    top = g.reduce("max", x, (1,))
    f = g.unary("exp", g.binary("sub", x, g.insert_expanded(top, (1,), x.shape)))
    total = g.reduce("sum", f, (1,))
    softmax = g.binary("div", f, g.insert_expanded(total, (1,), x.shape))
    return draw.pick((softmax, g.binary("add", g.unary("log", total), top)))


def _unbounded_softmax(draw: Draw) -> Iterator[Node]:
    y = draw.tensor((4, 6))
    for x in (y, g.binary("maximum", y, like(0.0, y)), g.binary("minimum", y, like(50.0, y))):
        top = g.reduce("max", x, (1,))
        f = g.unary("exp", g.binary("sub", x, g.insert_expanded(top, (1,), x.shape)))
        total = g.reduce("sum", f, (1,))
        yield g.binary("div", f, g.insert_expanded(total, (1,), x.shape))
        yield g.binary("add", g.unary("log", total), top)


# ------------------------------------------------------------------------------------------ roots


def _square_of_root(node: Node, env: Env) -> Node | None:
    match node:
        case g.Binary(op="mul", a=g.Unary(op="sqrt", x=x), b=g.Unary(op="sqrt", x=y)) if x == y:
            return x if interval(x, env).lo >= 0 else None
        case g.Unary(op="sqrt", x=g.Binary(op="mul", a=a, b=b)) if a == b:
            return g.unary("abs", a)
        case _:
            return None


def _root_and_square(draw: Draw) -> Node:
    x = draw.tensor()
    root = g.unary("sqrt", g.binary("add", g.binary("mul", x, x), like(1.0, x)))
    return draw.pick((g.binary("mul", root, root), g.unary("sqrt", g.binary("mul", x, x))))


def _root_of_unknown(draw: Draw) -> Iterator[Node]:
    x, y = draw.tensor((3,)), draw.tensor((3,))
    yield g.binary("mul", g.unary("sqrt", x), g.unary("sqrt", x))
    yield g.unary("sqrt", g.binary("mul", x, y))


RULES = (
    Rule(
        "exp-of-log",
        "exp(log x) = x; exp(x + log y) = exp(x)·y; exp(x − log y) = exp(x)/y",
        "finite",
        (g.Unary,),
        _exp_of_log,
        "x and y are nonnegative by the program; for sums: exp(x) is there already",
        _exp_and_log,
        _exp_without_log,
    ),
    Rule(
        "exp-product",
        "exp(x)·exp(y) = exp(x + y); exp(x)/exp(y) = exp(x − y)",
        "finite",
        (g.Binary,),
        _exp_product,
        "the exponentials are used nowhere else; neither overflows",
        _two_exponentials,
        _lone_exponentials,
    ),
    Rule(
        "log-of-product",
        "log(exp(x)/y) = x − log y; log(exp(x)·y) = x + log y",
        "finite",
        (g.Unary,),
        _log_of_product,
        "no factor is a negative constant; neither exponential nor product overflows",
        _log_of_softmax,
        _log_of_others,
    ),
    Rule(
        "bounded-shift",
        "exp(x − m) / Σ exp(x − m) = exp(x) / Σ exp(x); log Σ exp(x − m) + m = log Σ exp(x)",
        "finite",
        (g.Binary,),
        _bounded_shift,
        "the program bounds x by ±32, and m is the same all along the sum",
        _bounded_softmax,
        _unbounded_softmax,
    ),
    Rule(
        "square-of-root",
        "√x·√x = x; √(x·x) = |x|",
        "finite",
        (g.Unary, g.Binary),
        _square_of_root,
        "for √x·√x, the program makes x nonnegative; x·x neither over- nor underflows",
        _root_and_square,
        _root_of_unknown,
    ),
)
