"""Rules about contractions: sums that move through them, what they need not compute, their order.

Every rule reads the graph into a nest (`nest`), lets `plan` write the cheapest graph for it, and
leaves it to the engine whether that pays.
"""

from collections.abc import Iterator
from typing import TypeGuard

from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir.graph import Node

from . import plan
from .nest import Factor, Nest, Reader, from_contract, from_sum, from_view, opens
from .rule import Env, Rule
from .samples import Draw

# ------------------------------------------------------------------------- sums of contractions


def _sum_of_contraction(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Reduce)
    if node.op != "sum" or not node.x.size or not _leads_to_contraction(node.x):
        return None
    if not is_only_summed(node.x, env):
        return None
    found = []
    for depth in (1, 2):
        reader = Reader(contractions=depth, products=True)
        nest = from_sum(node.x, node.axes_reduced, reader)
        if reader.opened == len(found) + 1 and (other := plan.best(nest)) is not None:
            found.append((other, frozenset(f.x for f in nest.factors)))
    leaves = frozenset(n for _, below in found[-1:] for n in below)
    return min((n for n, _ in found), key=lambda n: plan.cost_above(n, leaves), default=None)


def is_only_summed(x: Node, env: Env) -> bool:
    """Whether there are contractions below `x`, and they are needed for sums alone.

    One that is stored for another reader can be summed on the way, which costs nothing.
    """
    stack: list[Node] = [n for n in _linear_below(x, True) if isinstance(n, g.Contract)]
    seen: dict[Node, None] = {}
    if not stack:
        return False
    while stack:
        n = stack.pop()
        if n in seen:
            continue
        seen[n] = None
        for user in env.users(n):
            if _is_product(user) and user.a == user.b:
                return False
            if isinstance(user, g.View | g.Cast) or _is_product(user) or _is_sum(user):
                stack.append(user)
            elif not (isinstance(user, g.Reduce) and user.op == "sum"):
                return False
    # A product of two of them is no linear map: its sum needs every element.
    return not any(_is_product(n) and n.a in seen and n.b in seen for n in seen)


def _leads_to_contraction(x: Node) -> bool:
    """Whether a contraction lies below views, widening casts and products."""
    return any(isinstance(n, g.Contract) for n in _linear_below(x))


def _linear_below(x: Node, sums: bool = False) -> Iterator[Node]:
    """`x` and what lies below views, widening casts and products, contractions not entered; below
    sums and differences too if asked for."""
    stack = [x]
    while stack:
        n = stack.pop()
        yield n
        if isinstance(n, g.View | g.Cast):
            stack.append(n.x)
        elif _is_product(n) or (sums and _is_sum(n)):
            stack += n.operands


def _is_sum(n: Node | None) -> TypeGuard[g.Binary]:
    return isinstance(n, g.Binary) and n.op in ("add", "sub")


def _is_product(n: Node | None) -> TypeGuard[g.Binary]:
    return isinstance(n, g.Binary) and n.op == "mul"


def matmul(a: Node, b: Node) -> Node:
    """`a @ b` over the last two axes; leading axes of `a` and `b` are equal or absent in `b`."""
    *batch, m, k = a.shape
    n = b.shape[-1]
    shape = (*batch, m, n)
    out = ix.axes(shape)
    r = ix.var("r0", k)
    lead = out[: len(b.shape) - 2]
    return g.contract(a, b, shape, (k,), (*out[:-1], r), (*lead, r, out[-1]))


def convolution(
    x: Node, w: Node, stride: int = 1, padding: int = 0, dilation: int = 1, groups: int = 1
) -> Node:
    """The convolution of x[n, c, *space] with w[o, c/groups, *taps]."""
    n, _, *space = x.shape
    o, per, *taps = w.shape
    sizes = [
        (s + 2 * padding - dilation * (t - 1) - 1) // stride + 1
        for s, t in zip(space, taps, strict=True)
    ]
    shape = (n, o, *sizes)
    out, r = ix.axes(shape), g.reduced_axes((per, *taps))
    at = [p * stride + u * dilation - padding for p, u in zip(out[2:], r[1:], strict=True)]
    group = out[1] // (o // groups)
    valid = ix.conjunction(c for e, s in zip(at, space, strict=True) for c in ix.inside(e, s))
    return g.contract(
        x,
        w,
        shape,
        (per, *taps),
        (out[0], group * per + r[0], *at),
        (out[1], *r),
        valid,
        family="convolution",
    )


def transposed_convolution(x: Node, w: Node, stride: int = 2, padding: int = 0) -> Node:
    """The transposed convolution of x[n, c, *space] with w[c, o, *taps]."""
    n, c, *space = x.shape
    _, o, *taps = w.shape
    sizes = [(s - 1) * stride - 2 * padding + t for s, t in zip(space, taps, strict=True)]
    shape = (n, o, *sizes)
    out, r = ix.axes(shape), g.reduced_axes((c, *taps))
    reach = [p + padding - u for p, u in zip(out[2:], r[1:], strict=True)]
    at = [e // stride for e in reach]
    conds = [ix.Cond("eq", e % stride) for e in reach]
    conds += [c for e, s in zip(at, space, strict=True) for c in ix.inside(e, s)]
    return g.contract(
        x,
        w,
        shape,
        (c, *taps),
        (out[0], r[0], *at),
        (r[0], out[1], *r[1:]),
        ix.conjunction(conds),
        family="convolution",
    )


def some_contraction(draw: Draw) -> Node:
    """A matmul, a batched one or a convolution of some kind."""
    n = draw.extent
    match draw.pick(range(6)):
        case 0:
            return _random_matmul(draw)
        case 1:
            return _random_matmul(draw, batch=True)
        case 2:
            w = draw.tensor((n(6, 8), 3, 3))
            return convolution(draw.tensor((2, 3, n(7, 12))), w, *_conv_options(draw))
        case 3:
            w = draw.tensor((8, 2, 3, 2))
            return convolution(draw.tensor((2, 4, n(7, 9), n(7, 8))), w, groups=2, padding=1)
        case 4:
            w = draw.tensor((3, n(6, 8), n()))
            stride = draw.pick((1, 2, 3))
            return transposed_convolution(
                draw.tensor((2, 3, n(7, 9))), w, stride, draw.pick((0, 1))
            )
        case _:
            w = draw.tensor((2, n(6, 8), 3, 3))
            return transposed_convolution(draw.tensor((2, 2, n(6, 8), n(6, 8))), w, 2, 1)


def _random_matmul(draw: Draw, batch: bool = False) -> Node:
    m, k, n, b = (draw.extent(6, 9) for _ in range(4))
    lead = (b,) if batch else ()
    return matmul(draw.tensor((*lead, m, k)), draw.tensor((*(lead if draw.chance() else ()), k, n)))


def _conv_options(draw: Draw) -> tuple[int, int, int]:
    return draw.pick(((1, 0, 1), (1, 1, 1), (2, 1, 1), (1, 2, 2), (2, 0, 2)))


def _contraction_and_sum(draw: Draw) -> Node:
    y = some_contraction(draw)
    first = 1 if len(y.shape) == 2 or draw.chance() else 2
    axes = tuple(range(first, len(y.shape)))
    return g.reduce("sum", y, axes)


def _not_only_summed(draw: Draw) -> Iterator[Node]:
    for y in (_random_matmul(draw), convolution(draw.tensor((2, 3, 9)), draw.tensor((4, 3, 3)))):
        total = g.reduce("sum", y, (1,))
        yield g.binary("mul", y, g.insert_expanded(total, (1,), y.shape))
        yield g.binary("sub", y, g.insert_expanded(total, (1,), y.shape))
    yield g.reduce("max", _random_matmul(draw), (1,))
    z = _random_matmul(draw)
    yield g.reduce("sum", g.unary("abs", z), (0, 1))


# ------------------------------------------------------------------ contractions larger than needed


def _smaller_contraction(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Contract)
    if not opens(node):
        return None
    nest = from_contract(node)
    return plan.best(nest) if _is_wasteful(nest) else None


def _is_wasteful(nest: Nest) -> bool:
    """Whether a loop or an output axis is not needed by both sides, or a side is constant."""
    used = [set(f.variables) for f in nest.factors]
    needless = any(not all(v in s for s in used) for v in nest.loops)
    idle = any(not any(v in s for s in used) for v in ix.variables(*nest.axes))
    constant = any(isinstance(f.x, g.Const) for f in nest.factors)
    equal = any(
        c.kind == "eq" and not isinstance(c.x, ix.Mod) for f in nest.factors for c in f.valid
    )
    return needless or idle or constant or equal or not nest.loops


def _wasteful(draw: Draw) -> Node:
    m, k, n = draw.extent(), draw.extent(), draw.extent()
    a, b = draw.tensor((m, k)), draw.tensor((k, n))
    row, column = g.expand(draw.tensor((1, k)), (m, k)), g.expand(draw.tensor((1, n)), (k, n))
    i, j = ix.axes((k, k))
    diagonal = g.view(draw.tensor((k,)), (k, k), (i,), (ix.equals(i, j),))
    return draw.pick(
        (
            matmul(row, b),
            matmul(a, column),
            matmul(a, g.const(draw.number(), a.dtype, (k, n))),
            matmul(draw.tensor((m, 1)), draw.tensor((1, n))),
            matmul(a, diagonal),
        )
    )


def _needed_in_full(draw: Draw) -> Iterator[Node]:
    yield _random_matmul(draw)
    yield matmul(draw.tensor((3, 4)), g.permute(draw.tensor((5, 4)), (1, 0)))
    yield convolution(draw.tensor((2, 3, 6)), draw.tensor((4, 3, 3)), padding=1)
    yield transposed_convolution(draw.tensor((2, 3, 4)), draw.tensor((3, 2, 3)))


# -------------------------------------------------------------------------------- dead outputs


def _part_of_contraction(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.View)
    if not isinstance(node.x, g.Contract) or node.size >= node.x.size or not opens(node.x):
        return None
    if not node.size:
        return None
    nest = from_view(node, Reader())
    return plan.best(nest) if nest is not None else None


def _slice_of_contraction(draw: Draw) -> Node:
    # Part of a grouped or transposed convolution is not always one again, so it may not pay.
    y = draw.pick(
        (
            _random_matmul(draw),
            _random_matmul(draw, batch=True),
            convolution(
                draw.tensor((2, 3, draw.extent(7, 12))),
                draw.tensor((draw.extent(6, 8), 3, 3)),
                *_conv_options(draw),
            ),
            convolution(draw.tensor((2, 2, 9, 8)), draw.tensor((6, 2, 3, 2)), 2),
        )
    )
    axis = draw.pick(range(len(y.shape)))
    extent = y.shape[axis]
    shape = (*y.shape[:axis], 1 if extent < 3 else extent // 2, *y.shape[axis + 1 :])
    index = list(ix.axes(shape))
    index[axis] = index[axis] * 2 if extent >= 3 else ix.const(extent - 1)
    return g.view(y, shape, index)


def _slice_and_whole(draw: Draw) -> Iterator[Node]:
    y = _random_matmul(draw)
    shape = (1, *y.shape[1:])
    last = g.view(y, shape, (ix.const(y.shape[0] - 1), *ix.axes(shape)[1:]))
    yield g.binary("add", y, g.expand(last, y.shape))


# ----------------------------------------------------------------------------------------- order


def _reordered(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Contract)
    if not opens(node) or not any(_leads_to_contraction(x) for x in node.operands):
        return None
    nest = from_contract(node, deeper=1)
    if len(nest.factors) < 3:
        return None
    other, leaves = plan.best(nest), frozenset(f.x for f in nest.factors)
    if other is None or not plan.is_cheaper(other, node, leaves):
        return None
    return other


def _chain(draw: Draw) -> Node:
    m = draw.extent(3, 5)
    a, b = draw.tensor((m, m)), draw.tensor((m, m))
    v = draw.tensor((m, 1))
    thin, wide = draw.tensor((m, 2)), draw.tensor((2, 6))
    return draw.pick(
        (
            matmul(matmul(a, b), v),
            matmul(matmul(matmul(a, b), a), v),
            matmul(matmul(thin, wide), draw.tensor((6, 2))),
        )
    )


def _best_order(draw: Draw) -> Iterator[Node]:
    a, b, v = draw.tensor((4, 4)), draw.tensor((4, 4)), draw.tensor((4, 1))
    yield matmul(a, matmul(b, v))
    yield matmul(g.unary("tanh", matmul(a, b)), v)
    ab = matmul(a, b)
    yield g.binary("add", ab, g.expand(matmul(ab, v), (4, 4)))


# -------------------------------------------------------------------------------------- operands


def _view_operand(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Contract)
    if not opens(node) or not any(isinstance(x, g.View) for x in node.operands):
        return None
    sides = []
    for x, index, valid in (
        (node.a, node.a_index, node.a_valid),
        (node.b, node.b_index, node.b_valid),
    ):
        side = Factor(x, index, valid)
        inside = Reader(contractions=0).factors(side)[0]
        sides.append(inside if _is_simple(inside, side) else side)
    a, b = sides
    return g.contract(
        a.x,
        b.x,
        node.shape,
        node.reduced,
        a.index,
        b.index,
        a.valid,
        b.valid,
        node.family,
        node.dtype,
    )


def _is_simple(inside: Factor, side: Factor) -> bool:
    """Whether reading through the view leaves plain strides and no new conditions."""
    linear = all(isinstance(a, ix.Var) for e in inside.index for _, a in ix.parts(e)[1])
    return linear and len(inside.valid) <= len(side.valid)


def _transposed_operand(draw: Draw) -> Node:
    return matmul(draw.tensor((3, 4)), g.permute(draw.tensor((5, 4)), (1, 0)))


def _merged_operand(draw: Draw) -> Iterator[Node]:
    x = draw.tensor((4, 3, 2))
    yield matmul(g.reshape(g.permute(x, (0, 2, 1)), (3, 8)), draw.tensor((8, 2)))


_S = (g.Reduce,)
_C = (g.Contract,)

RULES = (
    Rule(
        "sum-through-contraction",
        "Σ_j Σ_k a[i,k]·b[k,j] = Σ_k a[i,k]·(Σ_j b[k,j]), with edge-corrected sums in convolutions",
        "finite",
        _S,
        _sum_of_contraction,
        "only the sum of the contraction is used",
        _contraction_and_sum,
        _not_only_summed,
    ),
    Rule(
        "smaller-contraction",
        "loops that one side ignores are summed first; axes both ignore are broadcast",
        "finite",
        _C,
        _smaller_contraction,
        "a side is constant, broadcast or diagonal, or nothing is summed",
        _wasteful,
        _needed_in_full,
    ),
    Rule(
        "part-of-contraction",
        "view(a @ b) = view(a) @ view(b)",
        "exact",
        (g.View,),
        _part_of_contraction,
        "the view reads fewer elements than there are, the rest is used nowhere, and what is left "
        "is a call again or far smaller",
        _slice_of_contraction,
        _slice_and_whole,
    ),
    Rule(
        "contraction-order",
        "(a @ b) @ c = a @ (b @ c), in the order with the fewest operations",
        "reassociate",
        _C,
        _reordered,
        "the inner product is used nowhere else",
        _chain,
        _best_order,
    ),
    Rule(
        "view-operand",
        "view_f(x) @ b reads x at f",
        "exact",
        _C,
        _view_operand,
        "the composed index is linear in the loops and needs no new condition",
        _transposed_operand,
        _merged_operand,
    ),
)
