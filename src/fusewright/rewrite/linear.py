"""Rules that use that a contraction is linear in each operand: sums, factors, shared operands."""

from collections.abc import Iterator
from dataclasses import replace

from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir.dtypes import FLOAT64, INT64
from fusewright.ir.graph import Node

from .build import dependent_axes, like, scaled, split_const, through_view
from .contract import convolution, matmul
from .nest import opens
from .rule import Env, Rule
from .samples import Draw


def _other_operand(c: g.Contract, side: int, x: Node) -> Node:
    """`c` with operand number `side` replaced by a tensor of the same shape."""
    return c.with_operands((x, c.b) if side == 0 else (c.a, x))


def _distribute(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Contract)
    if not opens(node):
        return None
    for side, x in enumerate(node.operands):
        if _is_centred(x.x if isinstance(x, g.View) else x):
            continue
        if isinstance(x, g.Binary) and x.op in ("add", "sub"):
            return g.binary(x.op, *(_other_operand(node, side, o) for o in x.operands))
        if isinstance(x, g.View) and isinstance(x.x, g.Binary) and x.x.op in ("add", "sub"):
            if x.valid and x.fill != 0:
                continue
            parts = [through_view(o, x.shape, x.index, x.valid, 0) for o in x.x.operands]
            return g.binary(x.x.op, *(_other_operand(node, side, o) for o in parts))
    return None


def _is_centred(x: Node) -> bool:
    """Whether x is `y - c Σ y`: products of y and of its mean may be large beside their difference,
    which a float then has none of."""
    if not isinstance(x, g.Binary) or x.op != "sub":
        return False
    y, mean = _source(x.a), x.b
    while not isinstance(mean, g.Reduce):
        if isinstance(mean, g.View | g.Cast):
            mean = mean.x
        elif isinstance(mean, g.Binary) and mean.op in ("mul", "div"):
            mean = mean.a if isinstance(_source(mean.b), g.Const) else mean.b
        else:
            return False
    return mean.op == "sum" and _source(mean.x) == y


def _source(x: Node) -> Node:
    """x before views and conversions."""
    while isinstance(x, g.View | g.Cast):
        x = x.x
    return x


def _stacked_layers(draw: Draw) -> Node:
    x, w1, w2 = draw.tensor((60, 6)), draw.tensor((6, 30)), draw.tensor((30, 6))
    bias = draw.tensor((30,))
    hidden = g.binary("add", matmul(x, w1), g.expand(bias, (60, 30)))
    return matmul(hidden, w2)


def _nonlinear_layers(draw: Draw) -> Iterator[Node]:
    x, w1, w2 = draw.tensor((60, 6)), draw.tensor((6, 30)), draw.tensor((30, 6))
    hidden = g.binary("add", matmul(x, w1), draw.row((60, 30), (1,)))
    yield matmul(g.unary("tanh", hidden), w2)
    yield matmul(g.binary("add", draw.tensor((60, 6)), draw.tensor((60, 6))), w1)
    small = g.binary("add", matmul(draw.tensor((3, 6)), w1), draw.row((3, 30), (1,)))
    yield matmul(small, w2)
    a, b = draw.tensor((30, 9)), draw.tensor((30, 8))
    yield matmul(_transposed(_centred(a, draw)), _centred(b, draw))


def _centred(x: Node, draw: Draw) -> Node:
    total = g.reduce("sum", x, (0,))
    mean = g.binary("div", total, draw.like(x.shape[0], total))
    return g.binary("sub", x, g.insert_expanded(mean, (0,), x.shape))


def _transposed(x: Node) -> Node:
    return g.permute(x, (1, 0))


# --------------------------------------------------------------------------------------- factors


def _factor_out(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Contract)
    if not opens(node):
        return None
    for side, (x, index) in enumerate(((node.a, node.a_index), (node.b, node.b_index))):
        if isinstance(x, g.Unary) and x.op == "neg":
            return g.unary("neg", _other_operand(node, side, x.x))
        if not isinstance(x, g.Binary) or x.op not in ("mul", "div"):
            continue
        pairs = ((x.a, x.b), (x.b, x.a)) if x.op == "mul" else ((x.a, x.b),)
        for rest, factor in pairs:
            if (moved := _at_output(node, factor, index)) is not None:
                return g.binary(x.op, _other_operand(node, side, rest), moved)
    return None


def _at_output(c: g.Contract, factor: Node, index: tuple[ix.Index, ...]) -> Node | None:
    """`factor`, read at the contraction's index, over the output; None if it varies in the sum."""
    depends = dependent_axes(factor)
    if any(v not in c.axes for k in depends for v in ix.variables(index[k])):
        return None
    extents = zip(index, factor.shape, strict=True)
    if any(k in depends and not 0 <= e.lo <= e.hi < n for k, (e, n) in enumerate(extents)):
        return None
    at = [e if k in depends else ix.const(0) for k, e in enumerate(index)]
    return through_view(g.cast(factor, c.dtype), c.shape, at)


def _scaled_operand(draw: Draw) -> Node:
    m, k, n = 8, 9, 3
    x, w = draw.tensor((m, k)), draw.tensor((k, n))
    factor = draw.pick((draw.like(draw.number(), x), draw.row((m, k), (0,))))
    return draw.pick(
        (
            matmul(g.binary(draw.pick(("mul", "div")), x, factor), w),
            matmul(g.unary("neg", x), w),
            convolution(
                g.binary("mul", y := draw.tensor((2, 3, 9)), draw.like(draw.number(), y)),
                draw.tensor((2, 3, 3)),
                padding=1,
            ),
        )
    )


def _scaled_along_sum(draw: Draw) -> Iterator[Node]:
    x, w = draw.tensor((8, 9)), draw.tensor((9, 3))
    yield matmul(g.binary("mul", x, draw.row((8, 9), (1,))), w)
    yield matmul(g.binary("div", draw.like(2.0, x), x), w)


# -------------------------------------------------------------------------------- shared operands


def _shared_operand(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Binary)
    if node.op not in ("add", "sub"):
        return None
    (a, c), (b, d) = _multiple(node.a), _multiple(node.b)
    if not isinstance(a, g.Contract) or not isinstance(b, g.Contract) or _maps(a) != _maps(b):
        return None
    if a.a == b.a and a.b.shape == b.b.shape and a.b.dtype == b.b.dtype:
        return replace(a, b=g.binary(node.op, scaled(a.b, c), scaled(b.b, d)))
    if a.b == b.b and a.a.shape == b.a.shape and a.a.dtype == b.a.dtype:
        return replace(a, a=g.binary(node.op, scaled(a.a, c), scaled(b.a, d)))
    return None


def _multiple(x: Node) -> tuple[Node, float]:
    """(y, c) with x = c·y for a constant c, 1 where there is none."""
    if isinstance(x, g.Binary) and x.op == "mul" and (split := split_const(x)) is not None:
        return split[0], float(split[1])
    return x, 1.0


def _maps(c: g.Contract) -> tuple[object, ...]:
    return (c.reduced, c.a_index, c.b_index, c.a_valid, c.b_valid, c.family, c.dtype)


def _two_weights(draw: Draw) -> Node:
    x = draw.tensor((9, 8))
    v, w = draw.tensor((8, 5)), draw.tensor((8, 5))
    op = draw.pick(("add", "sub"))
    if draw.chance():
        y = draw.tensor((9, 8))
        return g.binary(op, matmul(x, w), matmul(y, w))
    right = matmul(x, w)
    if draw.chance():
        right = g.binary("mul", right, draw.like(draw.number(), right))
    return g.binary(op, matmul(x, v), right)


def _two_products(draw: Draw) -> Iterator[Node]:
    x, y = draw.tensor((9, 8)), draw.tensor((9, 8))
    v, w = draw.tensor((8, 5)), draw.tensor((8, 5))
    yield g.binary("add", matmul(x, v), matmul(y, w))
    xv, xw = matmul(x, v), matmul(x, w)
    yield g.binary("mul", g.binary("add", xv, xw), g.binary("mul", xv, xw))


# ----------------------------------------------------------------------------------------- lookups


def _lookup(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Contract)
    if not opens(node) or len(node.reduced) != 1 or node.a_valid or node.b_valid:
        return None
    (loop,) = node.reduced_axes
    sides = ((node.a, node.a_index), (node.b, node.b_index))
    for (hot, at), (x, index) in (sides, sides[::-1]):
        axes = [k for k, e in enumerate(index) if loop in ix.variables(e)]
        along = [k for k, e in enumerate(at) if loop in ix.variables(e)]
        if not (len(axes) == len(along) == 1 and index[axes[0]] == at[along[0]] == loop):
            continue
        where = _hot_position(hot, along[0], at, node.shape)
        if where is not None:
            return _looked_up(node, x, index, axes[0], where)
    return None


def _hot_position(
    hot: Node, axis: int, at: tuple[ix.Index, ...], shape: tuple[int, ...]
) -> Node | None:
    """Over the output's `shape`, the position of the only one among zeros along `axis` of `hot`."""
    test = hot.x if isinstance(hot, g.Cast) else hot
    if not isinstance(test, g.Binary) or test.op != "eq" or test.a.dtype.kind != "int":
        return None
    for p, counter in ((test.a, test.b), (test.b, test.a)):
        counts = isinstance(counter, g.Iota) and counter.value == counter.axes[axis]
        if counts and axis not in dependent_axes(p):
            index = [ix.const(0) if k == axis else e for k, e in enumerate(at)]
            return through_view(p, shape, index)
    return None


def _looked_up(c: g.Contract, x: Node, index: tuple[ix.Index, ...], axis: int, where: Node) -> Node:
    zero, last = (like(v, where) for v in (0, x.shape[axis] - 1))
    inside = g.binary("logical_and", g.binary("ge", where, zero), g.binary("le", where, last))
    position = g.binary("minimum", g.binary("maximum", where, zero), last)
    index = (*index[:axis], ix.const(0), *index[axis + 1 :])
    found = g.cast(g.gather(x, position, axis=axis, index=index), c.dtype)
    return g.where(inside, found, like(0, found))


def _one_hot(x: Node, extent: int) -> Node:
    shape = (*x.shape, extent)
    counter = g.iota(ix.axes(shape)[-1], shape, x.dtype)
    return g.cast(g.binary("eq", g.insert_expanded(x, (len(x.shape),), shape), counter), FLOAT64)


def _one_hot_product(draw: Draw) -> Node:
    return matmul(_one_hot(draw.tensor((9,), INT64), 60), draw.tensor((60, 5)))


def _several_hot(draw: Draw) -> Iterator[Node]:
    i, w = draw.tensor((9, 60), INT64), draw.tensor((60, 5))
    counter = g.iota(ix.axes((9, 60))[1], (9, 60), INT64)
    yield matmul(g.cast(g.binary("eq", i, counter), FLOAT64), w)
    twice = g.iota(ix.axes((9, 60))[1] // 2, (9, 60), INT64)
    rows = g.insert_expanded(draw.tensor((9,), INT64), (1,), (9, 60))
    yield matmul(g.cast(g.binary("eq", rows, twice), FLOAT64), w)
    yield matmul(g.cast(g.binary("le", rows, counter), FLOAT64), w)


_C = (g.Contract,)

RULES = (
    Rule(
        "distribute-contraction",
        "(x + p) @ w = x @ w + p @ w",
        "finite",
        _C,
        _distribute,
        "one of the products is cheaper than the sum was; it does not subtract a mean of itself",
        _stacked_layers,
        _nonlinear_layers,
    ),
    Rule(
        "factor-out-of-contraction",
        "(c·x) @ w = c·(x @ w)",
        "finite",
        _C,
        _factor_out,
        "the factor does not vary along a summed axis, and the output is not larger",
        _scaled_operand,
        _scaled_along_sum,
    ),
    Rule(
        "shared-operand",
        "x @ v + x @ w = x @ (v + w)",
        "finite",
        (g.Binary,),
        _shared_operand,
        "both contractions read in the same way and are used nowhere else",
        _two_weights,
        _two_products,
    ),
    Rule(
        "lookup",
        "onehot(i) @ w = w[i], zero where i is out of range",
        "finite",
        _C,
        _lookup,
        "one operand compares a counter along the summed axis with what does not vary along it",
        _one_hot_product,
        _several_hot,
    ),
)
