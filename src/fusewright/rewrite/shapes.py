"""How a chain of pointwise operations moves with one of its operands: rising, falling, one valley.

A function has a "valley" where it falls and then rises (quasi-convex), a "hill" where it rises and
then falls. Only what holds for every number of the stated range is claimed. No rule lives here.
"""

from collections.abc import Callable, Sequence
from typing import Literal

from fusewright.ir import graph as g
from fusewright.ir.graph import Node
from fusewright.ir.scalar import OPS
from fusewright.target.cost import is_pointwise

from .build import is_op, value_of
from .numerics import fold
from .range import Interval

Curve = Literal["rise", "fall", "valley", "hill", "level"]
Range = Callable[[Node], Interval]

# A chain of more operations than this is not looked into.
REACH = 24
_TURNED: dict[Curve, Curve] = {
    "rise": "fall",
    "fall": "rise",
    "valley": "hill",
    "hill": "valley",
    "level": "level",
}
# Functions that rise, or fall, wherever they are defined if the operand is at least this.
_RISE_FROM = {"log": 0.0, "log2": 0.0, "log10": 0.0, "sqrt": 0.0, "log1p": -1.0, "abs": 0.0}
_RISE_FROM |= {"cosh": 0.0, "acosh": 1.0}
_FALL_FROM = {"reciprocal": 0.0, "rsqrt": 0.0}


def turned(curve: Curve) -> Curve:
    """The curve of the negated function."""
    return _TURNED[curve]


def step_of(node: Node, operand: int, values: Range) -> Curve | None:
    """How `node` moves with one operand while the others stay; None where that is not known."""
    if not node.dtype.is_float or not node.operands[operand].dtype.is_float:
        return None
    match node:
        case g.Unary():
            return _unary(node, values)
        case g.Cast():
            return "rise"
        case g.Binary(op="add" | "maximum" | "minimum"):
            return "rise"
        case g.Binary(op="sub"):
            return "fall" if operand else "rise"
        case g.Binary(op="mul"):
            return _by_sign(values(node.operands[1 - operand]))
        case g.Binary(op="div") if not operand:
            other = values(node.b)
            return _by_sign(other) if other.excludes_zero else None
        case g.Binary(op="div"):
            sign = _by_sign(values(node.a))
            known = values(node.b).excludes_zero and sign is not None
            return turned(sign) if known and sign is not None else None
        case _:
            return None


def _unary(node: g.Unary, values: Range) -> Curve | None:
    if (known := OPS[node.op].monotone) is not None:
        return "rise" if known == "increasing" else "fall"
    below = values(node.x)
    if node.op in _RISE_FROM and below.lo >= _RISE_FROM[node.op]:
        return "rise"
    if node.op in ("abs", "cosh") and below.hi <= 0:
        return "fall"
    if node.op in _FALL_FROM and below.lo > _FALL_FROM[node.op]:
        return "fall"
    return "valley" if node.op in ("abs", "cosh") else None


def _by_sign(x: Interval) -> Curve | None:
    if x.lo >= 0:
        return "rise"
    return "fall" if x.hi <= 0 else None


# ------------------------------------------------------------------------- functions of one operand


def source_of(node: Node) -> Node | None:
    """The nearest value below `node` that alone, with constants, determines it pointwise."""
    inside = _below(node)
    if inside is None:
        return None
    return next((y for y in inside[1:] if _determines(y, node)), None)


def _below(node: Node) -> list[Node] | None:
    """`node` and the pointwise chain below it with its leaves, users first; None if too long."""
    order: dict[Node, None] = {}
    stack = [node]
    while stack:
        n = stack.pop(0)
        if value_of(n) is not None:
            continue
        order.pop(n, None)
        order[n] = None
        if len(order) > REACH:
            return None
        if is_pointwise(n):
            stack.extend(n.operands)
    return list(order)


def _determines(y: Node, node: Node) -> bool:
    stack, seen = [node], set()
    while stack:
        n = stack.pop()
        if n == y or n in seen or value_of(n) is not None:
            continue
        if not is_pointwise(n):
            return False
        seen.add(n)
        stack.extend(n.operands)
    return True


def curve_of(node: Node, y: Node, values: Range) -> Curve | None:
    """The curve of `node` as a function of `y`, which determines it."""
    if node == y:
        return "rise"
    if value_of(node) is not None:
        return "level"
    if isinstance(node, g.Where):
        return _pieces(node, y, values)
    if isinstance(node, g.Binary) and node.op == "mul" and (found := _product(node, y)):
        return found
    if not is_pointwise(node):
        return None
    return _composed(node, y, values)


def _composed(node: Node, y: Node, values: Range) -> Curve | None:
    curves: list[Curve | None] = [curve_of(o, y, values) for o in node.operands]
    moving = [k for k, c in enumerate(curves) if c != "level"]
    if len(moving) == 1:
        outer, inner = step_of(node, moving[0], values), curves[moving[0]]
        if outer == "valley":
            return "valley" if inner in ("rise", "fall") else None
        return None if inner is None or outer is None else _through(outer, inner)
    if is_op(node, "maximum") and None not in curves and "hill" not in curves:
        return "valley" if len(set(curves)) > 1 else curves[0]
    if is_op(node, "minimum") and None not in curves and "valley" not in curves:
        return "hill" if len(set(curves)) > 1 else curves[0]
    if is_op(node, "add") and curves[0] == curves[1] and curves[0] in ("rise", "fall"):
        return curves[0]
    if is_op(node, "sub") and {curves[0], curves[1]} == {"rise", "fall"}:
        return curves[0]
    return None


def _through(outer: Curve, inner: Curve) -> Curve:
    return inner if outer == "rise" else turned(inner)


# ---------------------------------------------------------------------------------------- products


def _factors(node: Node) -> tuple[list[Node], float]:
    """The factors of a product, and its constant ones multiplied."""
    stack, out, scale = [node], [], 1.0
    while stack:
        n = stack.pop()
        if (c := value_of(n)) is not None:
            scale *= c
        elif isinstance(n, g.Binary) and n.op == "mul":
            stack += n.operands
        elif isinstance(n, g.Binary) and n.op == "div" and (c := value_of(n.b)):
            stack.append(n.a)
            scale /= c
        else:
            out.append(n)
    return out, scale


def _product(node: g.Binary, y: Node) -> Curve | None:
    """The curve of `c·yⁿ` and of `c·y·gate(y)`.

    `y·h(y)` with `h ≥ 0` rising has a valley if h is log-concave for y ≤ 0: its derivative is
    `h·(1 + y·h'/h)`, and there `y·h'/h` rises.
    """
    factors, scale = _factors(node)
    if not scale:
        return None
    gates = [f for f in factors if f != y]
    if not gates:
        curve: Curve = "rise" if len(factors) % 2 else "valley"
    elif len(gates) == 1 and len(factors) == 2 and _is_gate(gates[0], y):
        curve = "valley"
    else:
        return None
    return curve if scale > 0 else turned(curve)


def _is_gate(h: Node, y: Node) -> bool:
    """Whether h is nonnegative, rising, and log-concave for y ≤ 0."""
    match h:
        case g.Unary(op="sigmoid"):
            return _is_odd(h.x, y)
        case g.Binary(op="add") if value_of(h.b) == 1 or value_of(h.a) == 1:
            inner = h.a if value_of(h.b) == 1 else h.b
            return (is_op(inner, "erf") or is_op(inner, "tanh")) and _is_odd(inner.operands[0], y)
        case g.Binary(op="minimum") if (value_of(h.b) or 0) > 0:
            low = h.a
            return is_op(low, "maximum") and _is_gate(low, y)
        case g.Binary(op="maximum") if value_of(h.b) == 0:
            line = h.a
            shifted = is_op(line, "add") and value_of(line.operands[1]) is not None
            return _is_odd(line.operands[0] if shifted else line, y)
        case _:
            return False


def _is_odd(u: Node, y: Node) -> bool:
    """Whether u is a sum of positive multiples of odd powers of y."""
    if is_op(u, "add"):
        return all(_is_odd(o, y) for o in u.operands)
    factors, scale = _factors(u)
    if scale > 0 and len(factors) == 1 and is_op(factors[0], "add"):
        return _is_odd(factors[0], y)
    return scale > 0 and len(factors) % 2 == 1 and all(f == y for f in factors)


# ------------------------------------------------------------------------------------------ pieces


def _pieces(node: g.Where, y: Node, values: Range) -> Curve | None:
    """The curve of `a(y) if y > t else b(y)`, and of the other comparisons with a constant."""
    test = node.cond
    if not isinstance(test, g.Binary) or test.a != y or test.op not in ("gt", "ge", "lt", "le"):
        return None
    if (t := value_of(test.b)) is None:
        return None
    right, left = (node.a, node.b) if test.op in ("gt", "ge") else (node.b, node.a)
    curves: tuple[Curve | None, ...] = tuple(curve_of(n, y, values) for n in (left, right))
    if curves == ("fall", "rise"):
        return "valley"
    if curves == ("rise", "fall"):
        return "hill"
    return curves[0] if curves[0] == curves[1] and _meets(left, right, y, t, curves[0]) else None


def _meets(left: Node, right: Node, y: Node, t: float, curve: Curve | None) -> bool:
    """Whether the step at t goes the way that both pieces go."""
    low, high = value_at(left, y, t), value_at(right, y, t)
    if low is None or high is None:
        return False
    return (low <= high and curve == "rise") or (low >= high and curve == "fall")


def value_at(node: Node, y: Node, t: float) -> float | None:
    """The value of `node` where y is t."""
    if node == y:
        return t
    if (c := value_of(node)) is not None:
        return c
    if not isinstance(node, g.Unary | g.Binary):
        return None
    operands: Sequence[float | None] = [value_at(o, y, t) for o in node.operands]
    known = [v for v in operands if v is not None]
    return fold(node.op, node.dtype, *known) if len(known) == len(operands) else None
