"""Rules about sums and products of many tensors: equal terms merge, small tensors meet first.

A tree of additions (or of multiplications) is read through views into a flat list, terms that
differ by a constant are merged, and the tree is written again so that tensors of small extent are
combined with each other before they meet large ones. So a bias cancels against its own mean, and a
chain of per-channel factors costs one multiplication per element.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite, prod

from fusewright.ir import graph as g
from fusewright.ir.graph import Node, Shape

from .build import dependent_axes, is_op, like, through_view, value_of
from .numerics import is_normal, wrapped
from .range import is_finite
from .rule import Env, Rule
from .samples import Draw

# Trees with more leaves are left as they are: grouping looks at all pairs.
LEAVES = 12
# A coefficient this much smaller than those it is the sum of is zero.
RESIDUE = Fraction(1, 1 << 50)


@dataclass(frozen=True, slots=True)
class Layout:
    """The views through which a tree is read, the outermost first."""

    views: tuple[g.View, ...] = ()

    def apply(self, x: Node) -> Node:
        for v in reversed(self.views):
            x = through_view(x, v.shape, v.index)
        return x

    def below(self, v: g.View) -> "Layout":
        return Layout((*self.views, v))


def is_layout(x: Node) -> bool:
    """Whether x is a view without borders: arithmetic below it could as well be above."""
    return isinstance(x, g.View) and not x.valid


# -------------------------------------------------------------------------------------------- sums


def sum_terms(node: Node) -> tuple[dict[Node, Fraction], Fraction, int] | None:
    """`node` as `Σ coefficient · term + constant`, and how many leaves the tree had.

    None when the tree is too large or holds a constant that is no number.
    """
    terms: dict[Node, Fraction] = {}
    sizes: dict[Node, Fraction] = {}
    constant, leaves = Fraction(0), 0
    stack: list[tuple[Node, Layout, Fraction]] = [(node, Layout(), Fraction(1))]
    while stack:
        x, layout, scale = stack.pop()
        if (c := value_of(x)) is not None:
            if not isfinite(c):
                return None
            constant += scale * Fraction(c)
            leaves += 1
        elif (parts := _sum_parts(x, layout)) is not None:
            stack += [(y, at, scale * k) for y, at, k in reversed(parts)]
        else:
            term = layout.apply(x)
            terms[term] = terms.get(term, Fraction(0)) + scale
            sizes[term] = sizes.get(term, Fraction(0)) + abs(scale)
            leaves += 1
        if leaves + len(stack) > LEAVES:
            return None
    # What rounding of the constants left of a term that cancels: 1 - n * (1 / n).
    exact = {t: c if abs(c) > RESIDUE * sizes[t] else Fraction(0) for t, c in terms.items()}
    return exact, constant, leaves


def _sum_parts(x: Node, at: Layout) -> list[tuple[Node, Layout, Fraction]] | None:
    """The summands of x with their factors, if x is a sum, a multiple or a view of one."""
    match x:
        case g.Binary(op="add"):
            return [(x.a, at, Fraction(1)), (x.b, at, Fraction(1))]
        case g.Binary(op="sub"):
            return [(x.a, at, Fraction(1)), (x.b, at, Fraction(-1))]
        case g.Unary(op="neg"):
            return [(x.x, at, Fraction(-1))]
        case g.Binary(op="mul" | "div") if (split := _constant_factor(x)) is not None:
            return [(split[0], at, split[1])]
        case g.View() if is_layout(x) and _is_linear(x.x):
            return [(x.x, at.below(x), Fraction(1))]
        case _:
            return None


def _is_linear(x: Node) -> bool:
    return isinstance(x, g.Unary | g.Binary | g.View) and _sum_parts(x, Layout()) is not None


def _constant_factor(x: g.Binary) -> tuple[Node, Fraction] | None:
    b = value_of(x.b)
    if b is not None and isfinite(b) and (x.op == "mul" or (b != 0 and x.dtype.is_float)):
        return x.a, Fraction(b) if x.op == "mul" else 1 / Fraction(b)
    a = value_of(x.a)
    if x.op == "mul" and a is not None and isfinite(a):
        return x.b, Fraction(a)
    return None


def _collect_terms(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Binary)
    scales = node.op in ("mul", "div") and _is_scaled_affine(node)
    if node.op not in ("add", "sub") and not scales:
        return None
    read = sum_terms(node)
    if read is None or (read[2] < 3 and len(read[0]) > 1 and not scales):
        return None
    terms, constant, _ = read
    gone = [t for t, c in terms.items() if not c]
    if not all(is_finite(t, env) for t in gone):
        return None
    live = {t: c for t, c in terms.items() if c}
    if node.dtype.kind == "int":
        limit = node.dtype
        live = {t: Fraction(wrapped(int(c), limit)) for t, c in live.items()}
        constant = Fraction(wrapped(int(constant), limit))
    return sum_of(live, constant, node)


def _is_scaled_affine(node: g.Binary) -> bool:
    """Whether `node` is c·(x·p + q) for a constant c and a p and q of fewer axes."""
    split = _constant_factor(node) if node.dtype.is_float else None
    if split is None or not isinstance(split[0], g.Binary) or split[0].op not in ("add", "sub"):
        return False
    for x, q in (split[0].operands, split[0].operands[::-1]):
        product = isinstance(x, g.Binary) and x.op in ("mul", "div")
        factors = x.operands if product else ()
        if any(_is_small(p, node) for p in factors) and _is_small(q, node):
            return True
    return False


def _is_small(x: Node, node: Node) -> bool:
    return len(dependent_axes(x)) < len(dependent_axes(node))


def sum_of(terms: dict[Node, Fraction], constant: Fraction, node: Node) -> Node | None:
    """The terms added, those of small extent with each other first."""
    values = [float(c) if node.dtype.is_float else int(c) for c in (*terms.values(), constant)]
    if not all(is_normal(v, node.dtype) for v in values):
        return None
    # Signs become subtractions; where there is nothing to subtract from, they stay in the factors.
    turn = all(c < 0 and c != -1 for c in terms.values()) and constant <= 0
    signed = [
        (
            t if abs(c) == 1 else g.binary("mul", t, like(v if turn else abs(v), t)),
            1 if turn or c > 0 else -1,
        )
        for (t, c), v in zip(terms.items(), values, strict=False)
    ]
    if constant or not signed:
        signed.append((like(values[-1], node), 1))
    total, sign = grouped(signed, node.shape, _added)
    return total if sign > 0 else g.unary("neg", total)


def _added(a: tuple[Node, int], b: tuple[Node, int]) -> tuple[Node, int]:
    (x, s), (y, t) = a, b
    if s == t:
        return g.binary("add", x, y), s
    return (g.binary("sub", x, y), 1) if s > 0 else (g.binary("sub", y, x), 1)


def grouped(items, shape: Shape, join):  # type: ignore[no-untyped-def]
    """`items` (node, sign) joined two by two, the pair of the smallest common extent first."""
    entries = [(item, dependent_axes(item[0])) for item in items]
    while len(entries) > 1:
        pairs = [
            (prod(shape[k] for k in p | q), j, i)
            for i, (_, q) in enumerate(entries)
            for j, (_, p) in enumerate(entries[:i])
        ]
        _, j, i = min(pairs)
        joined = (join(entries[j][0], entries[i][0]), entries[j][1] | entries[i][1])
        entries[j] = joined
        del entries[i]
    return entries[0][0]


# ---------------------------------------------------------------------------------------- products


def product_factors(node: Node) -> tuple[list[tuple[Node, int]], Fraction] | None:
    """`node` as `constant · Π factor^±1`; None when the tree is too large."""
    factors: list[tuple[Node, int]] = []
    constant = Fraction(1)
    stack: list[tuple[Node, Layout, int]] = [(node, Layout(), 1)]
    while stack:
        x, layout, power = stack.pop()
        c = value_of(x)
        if c is not None and isfinite(c) and (c or power > 0):
            constant *= Fraction(c) if power > 0 else 1 / Fraction(c)
        elif is_op(x, "neg"):
            constant = -constant
            stack.append((x.operands[0], layout, power))
        elif is_op(x, "mul") or (is_op(x, "div") and x.dtype.is_float):
            a, b = x.operands
            stack += [(b, layout, power if is_op(x, "mul") else -power), (a, layout, power)]
        elif isinstance(x, g.View) and is_layout(x) and _is_product(x.x):
            stack.append((x.x, layout.below(x), power))
        else:
            factors.append((layout.apply(x), power))
        if len(factors) + len(stack) > LEAVES:
            return None
    return factors, constant


def _is_product(x: Node) -> bool:
    return is_op(x, "mul") or is_op(x, "div") or is_op(x, "neg")


def _collect_factors(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Binary)
    if node.op not in ("mul", "div") or not any(_is_nested(o) for o in node.operands):
        return None
    read = product_factors(node)
    if read is None or len(read[0]) < 2:
        return None
    factors, constant = read
    value = float(constant) if node.dtype.is_float else wrapped(int(constant), node.dtype)
    if not value or not is_normal(value, node.dtype):
        return None
    return product_of(factors, value, node)


def _is_nested(x: Node) -> bool:
    return _is_product(x) or (isinstance(x, g.View) and is_layout(x) and _is_product(x.x))


def product_of(factors: Sequence[tuple[Node, int]], constant: float | int, node: Node) -> Node:
    """The factors multiplied, those of small extent with each other first."""
    items = list(factors)
    if constant != 1:
        items.append((like(constant, node), 1))
    total, power = grouped(items, node.shape, _multiplied)
    return total if power > 0 else g.binary("div", like(1, node), total)


def _multiplied(a: tuple[Node, int], b: tuple[Node, int]) -> tuple[Node, int]:
    (x, s), (y, t) = a, b
    if s == t:
        return g.binary("mul", x, y), s
    return (g.binary("div", x, y), 1) if s > 0 else (g.binary("div", y, x), 1)


# ----------------------------------------------------------------------------------- common factors


def _common_factor(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Binary)
    if node.op not in ("add", "sub"):
        return None
    first, second = product_factors(node.a), product_factors(node.b)
    if first is None or second is None or not node.dtype.is_float:
        return None
    (left, c), (right, d) = first, second
    common = [f for f in left if f in right]
    if not common or not c or not d:
        return None
    common = common[:1] if len(common) == min(len(left), len(right)) == 1 else common
    rests = [_without(side, common) for side in (left, right)]
    if not all(is_normal(float(v), node.dtype) for v in (c, d)):
        return None
    inner = [
        product_of(rest, float(v), node) if rest else like(float(v), node)
        for rest, v in zip(rests, (c, d), strict=True)
    ]
    return product_of([(g.binary(node.op, *inner), 1), *common], 1, node)


def _without(
    factors: list[tuple[Node, int]], gone: list[tuple[Node, int]]
) -> list[tuple[Node, int]]:
    rest = list(factors)
    for f in gone:
        if f in rest:
            rest.remove(f)
    return rest


# ----------------------------------------------------------------------------------------- samples


def _bias_and_mean(draw: Draw) -> Node:
    shape = (4, 3, 2)
    x = draw.tensor(shape)
    bias = draw.tensor((3,))
    mean = g.reduce("sum", x, (0, 2))
    shifted = g.binary("add", x, g.insert_expanded(bias, (0, 2), shape))
    shift = g.binary("add", g.binary("div", mean, like(8.0, mean)), bias)
    other = g.binary("add", g.binary("mul", x, like(draw.number(), x)), x)
    row = g.insert_expanded(draw.tensor((3,)), (0, 2), shape)
    affine = g.binary("add", g.binary("mul", x, row), g.insert_expanded(bias, (0, 2), shape))
    return draw.pick(
        (
            g.binary("sub", shifted, g.insert_expanded(shift, (0, 2), shape)),
            g.binary("mul", affine, like(draw.number(), x)),
            other,
        )
    )


def _nothing_in_common(draw: Draw) -> Iterator[Node]:
    shape = (4, 3)
    x, y = draw.tensor(shape), draw.tensor(shape)
    rows, columns = draw.row(shape, (0,)), draw.row(shape, (1,))
    yield g.binary("sub", g.binary("add", x, rows), y)
    yield g.binary("mul", g.binary("add", x, rows), like(draw.number(), x))
    yield g.binary("sub", g.binary("add", x, rows), columns)
    log = g.unary("log", x)
    yield g.binary("sub", g.binary("add", log, y), log)


def _channel_factors(draw: Draw) -> Node:
    shape = (4, 3)
    x = draw.tensor(shape)
    p, q = draw.row(shape, (1,)), g.unary("exp", draw.row(shape, (1,)))
    return draw.pick(
        (
            g.binary("mul", g.binary("mul", x, p), q),
            g.binary("div", g.binary("mul", x, p), q),
            g.binary("mul", g.binary("mul", x, like(draw.number(), x)), p),
            g.binary("mul", g.binary("mul", g.binary("mul", x, p), g.unary("tanh", x)), q),
        )
    )


def _full_factors(draw: Draw) -> Iterator[Node]:
    shape = (4, 3)
    x, y, z = (draw.tensor(shape) for _ in range(3))
    yield g.binary("mul", g.binary("mul", x, y), z)
    yield g.binary("mul", g.binary("mul", x, draw.row(shape, (0,))), draw.row(shape, (1,)))
    scaled = g.binary("mul", x, draw.row(shape, (1,)))
    yield g.binary("mul", g.binary("mul", scaled, like(0.3, x)), g.unary("exp", scaled))


def _shared_factor(draw: Draw) -> Node:
    shape = (4, 3)
    x, y = draw.tensor(shape), draw.tensor(shape)
    p = draw.pick((draw.row(shape, (1,)), draw.tensor(shape)))
    op = draw.pick(("add", "sub"))
    return draw.pick(
        (
            g.binary(op, g.binary("mul", x, p), g.binary("mul", p, y)),
            g.binary(op, g.binary("div", x, p), g.binary("div", y, p)),
        )
    )


def _no_shared_factor(draw: Draw) -> Iterator[Node]:
    shape = (3, 3)
    x, y, p = draw.tensor(shape), draw.tensor(shape), draw.tensor(shape)
    yield g.binary("add", g.binary("mul", x, p), g.binary("div", y, p))
    small = draw.tensor((3,))
    rows = g.insert_expanded(small, (1,), shape)
    columns = g.insert_expanded(small, (0,), shape)
    yield g.binary("add", g.binary("mul", x, rows), g.binary("mul", y, columns))
    xp = g.binary("mul", x, p)
    yield g.binary("mul", xp, g.binary("add", xp, g.binary("mul", y, p)))


_B = (g.Binary,)

RULES = (
    Rule(
        "collect-terms",
        "x + p − (x̄ + p) = x − x̄; c·x + d·x = (c+d)·x; (x + p) + q = x + (p + q); "
        "c·(x·p + q) = x·(c·p) + c·q",
        "finite",
        _B,
        _collect_terms,
        "no infinity arises in cancelling terms by the program itself",
        _bias_and_mean,
        _nothing_in_common,
    ),
    Rule(
        "collect-factors",
        "(x·p)·q = x·(p·q)",
        "reassociate",
        _B,
        _collect_factors,
        "p and q extend over fewer axes than x",
        _channel_factors,
        _full_factors,
    ),
    Rule(
        "common-factor",
        "x·p + y·p = (x + y)·p",
        "finite",
        _B,
        _common_factor,
        "the products are used nowhere else",
        _shared_factor,
        _no_shared_factor,
    ),
)
