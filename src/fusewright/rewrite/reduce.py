"""Rules about reductions: merging them, moving them through views and sums, and trivial ones.

Reductions of contractions are in `contract`, order and monotone functions in `order`.
"""

from collections.abc import Iterator, Sequence
from functools import reduce
from math import prod

from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir import offsets
from fusewright.ir.dtypes import INT32
from fusewright.ir.graph import Node
from fusewright.ir.scalar import REDUCTIONS, identity

from .build import (
    dependent_axes,
    drop_axes,
    like,
    restored,
    scaled,
    through_view,
    value_of,
)
from .contract import is_only_summed
from .rule import Env, Rule
from .samples import Draw

SELECTING = ("max", "min", "any", "all")
# Products within products whose factors are looked at: a shared product could have very many.
PRODUCT_DEPTH = 3


def kept_axes(node: g.Reduce) -> list[int]:
    return [k for k in range(len(node.x.shape)) if k not in node.axes_reduced]


# ------------------------------------------------------------------------------- nested and trivial


def _merge(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Reduce)
    windows = node.x if isinstance(node.x, g.View) else None
    inner = node.x if windows is None else windows.x
    if not isinstance(inner, g.Reduce) or inner.op != node.op:
        return None
    if windows is not None:
        return _merged_windows(node, windows, inner)
    kept = kept_axes(inner)
    return g.reduce(node.op, inner.x, (*inner.axes_reduced, *(kept[a] for a in node.axes_reduced)))


def _merged_windows(node: g.Reduce, windows: g.View, inner: g.Reduce) -> Node | None:
    """The reduction of windows of a reduction as one of larger windows."""
    fill = identity(node.op, node.dtype)
    if windows.valid and windows.fill != fill:
        return None
    rank = len(windows.shape)
    shape = (*windows.shape, *(inner.x.shape[a] for a in inner.axes_reduced))
    at = dict(zip(inner.axes_reduced, ix.axes(shape)[rank:], strict=True))
    at |= dict(zip(kept_axes(inner), windows.index, strict=True))
    index = [at[k] for k in range(len(inner.x.shape))]
    x = through_view(inner.x, shape, index, windows.valid, fill)
    return g.reduce(node.op, x, (*node.axes_reduced, *range(rank, len(shape))))


def _two_reductions(draw: Draw) -> Node:
    op = draw.pick(("sum", "max", "min", "prod"))
    x = g.reduce(op, draw.tensor((3, 4, 2, 3)), draw.pick(((0,), (1, 2), (3,))))
    if draw.chance():
        return _pool(op, _pool(op, draw.tensor((2, 12))))
    return g.reduce(op, x, (draw.pick((0, 1)),))


def _pool(op: str, x: Node, fill: float = 0.0, border: int = 0) -> Node:
    """Pairs of neighbours along the last axis, with `border` positions of `fill` on the left."""
    rows, extent = x.shape
    shape = (rows, (extent + border) // 2, 2)
    i, j, k = ix.axes(shape)
    at = j * 2 + k - border
    return g.reduce(op, g.view(x, shape, (i, at), ix.inside(at, extent), fill), (2,))


def _other_reduction(draw: Draw) -> Iterator[Node]:
    yield g.reduce("max", g.reduce("sum", draw.tensor((3, 4)), (1,)), (0,))
    yield g.reduce("sum", g.reduce("max", draw.tensor((3, 4)), (1,)), (0,))
    yield _pool("max", _pool("max", draw.tensor((2, 6))), 0.0, border=1)


def _trivial(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Reduce)
    extents = [node.x.shape[a] for a in node.axes_reduced]
    if not node.size:
        return None
    if not prod(extents):
        if node.op in ("max", "min"):
            return None
        return like(identity(node.op, node.dtype), node)
    if (c := value_of(node.x)) is not None:
        return _of_constant(node, c, prod(extents))
    return drop_axes(node.x, node.axes_reduced) if prod(extents) == 1 else None


def _of_constant(node: g.Reduce, value: float | int | bool, count: int) -> Node | None:
    if node.op in SELECTING:
        return like(value, node)
    if value != value or value in (float("inf"), float("-inf")):
        return None
    if node.op == "sum":
        return scaled(like(value, node), count)
    return like(value, node) if value in (0, 1) else None


def _over_little(draw: Draw) -> Node:
    op = draw.pick(("sum", "max", "min", "prod"))
    return draw.pick(
        (
            g.reduce(op, draw.tensor((3, 1, 2)), (1,)),
            g.reduce(op, draw.tensor((3, 1, 1)), (1, 2)),
            g.reduce("sum", draw.tensor((3, 0)), (1,)),
            g.reduce("prod", draw.tensor((0, 3)), (0,)),
            g.reduce("sum", g.const(draw.number(), draw.tensor().dtype, (3, 4)), (1,)),
        )
    )


def _over_something(draw: Draw) -> Iterator[Node]:
    yield g.reduce("max", draw.tensor((3, 1, 2)), (1, 2))
    yield g.reduce("sum", draw.tensor((3, 2)), (1,))


# -------------------------------------------------------------------------------- through views


def _components(v: g.View) -> list[tuple[frozenset[int], frozenset[int]]]:
    """(axes of the view, axes of its source) that belong together through the index map."""
    groups: list[tuple[set[int], set[int]]] = []
    variables = {e: k for k, e in enumerate(v.axes) if isinstance(e, ix.Var)}
    for j, e in enumerate(v.index):
        outs = {variables[w] for w in ix.variables(e)}
        joined = [s for s in groups if s[0] & outs]
        groups = [s for s in groups if not s[0] & outs]
        groups.append((outs.union(*(s[0] for s in joined)), {j}.union(*(s[1] for s in joined))))
    return [(frozenset(a), frozenset(b)) for a, b in groups]


def covers(v: g.View, outs: frozenset[int], sources: frozenset[int]) -> bool:
    """Whether the axes `outs` of the view enumerate each position of `sources` exactly once."""
    order = sorted(sources)
    extents = tuple(v.x.shape[j] for j in order)
    if prod(extents) != prod(v.shape[k] for k in outs):
        return False
    offset = offsets.flatten([v.index[j] for j in order], offsets.row_major(extents))
    terms = (
        sorted((abs(c), a) if isinstance(a, ix.Var) else (0, a) for c, a in ix.parts(offset)[1])
        if _only_variables(offset)
        else None
    )
    step = 1
    for c, a in terms or ():
        if c != step:
            return False
        step *= a.extent if isinstance(a, ix.Var) else 1
    return terms is not None and step == prod(extents)


def _only_variables(e: ix.Index) -> bool:
    return all(isinstance(a, ix.Var) for _, a in ix.parts(e)[1])


def _through_view(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Reduce)
    v = node.x
    if not isinstance(v, g.View) or v.valid or not v.size:
        return None
    reduced = frozenset(node.axes_reduced)
    done: dict[int, None] = {}
    used = {a for a in reduced if v.shape[a] == 1}
    for outs, sources in _components(v):
        if outs and outs <= reduced and covers(v, outs, sources):
            done.update(dict.fromkeys(sorted(sources)))
            used |= outs
    if not done:
        return None
    inner = g.reduce(node.op, v.x, done)
    rest = [k for k in range(len(v.shape)) if k not in used]
    shape = tuple(v.shape[k] for k in rest)
    pairs = zip((v.axes[k] for k in rest), ix.axes(shape), strict=True)
    names: dict[ix.Index, ix.Index] = {a: e for a, e in pairs if isinstance(a, ix.Var)}
    index = [ix.substitute(e, names) for j, e in enumerate(v.index) if j not in done]
    left = [position for position, k in enumerate(rest) if k in reduced]
    return g.reduce(node.op, through_view(inner, shape, index), left)


def _of_reordered(draw: Draw) -> Node:
    x = draw.tensor((4, 3, 2))
    op = draw.pick(("sum", "max"))
    return draw.pick(
        (
            g.reduce(op, g.permute(x, (2, 0, 1)), draw.pick(((0,), (1, 2), (0, 2)))),
            g.reduce(op, g.reshape(x, (4, 6)), (1,)),
            g.reduce(op, g.reshape(x, (2, 2, 6)), (0, 1)),
            g.reduce(op, g.keep_axes(x, (1,)), (0, 1)),
        )
    )


def _of_selected(draw: Draw) -> Iterator[Node]:
    x = draw.tensor((4, 4))
    out = ix.axes((2, 4))
    yield g.reduce("sum", g.view(x, (2, 4), (out[0] * 2, out[1])), (0,))
    i, j = ix.axes((3, 2))
    yield g.reduce("sum", g.view(draw.tensor((4,)), (3, 2), (i + j,)), (1,))
    yield g.reduce("sum", g.reshape(draw.tensor((6,)), (2, 3)), (1,))


def _of_broadcast(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Reduce)
    if not node.x.size or not isinstance(node.x, g.View | g.Iota) or value_of(node.x) is not None:
        return None
    depends = dependent_axes(node.x)
    free = [k for k, n in enumerate(node.x.shape) if k not in depends and n > 1]
    if node.op == "prod":
        free = [k for k in free if k not in node.axes_reduced]
    if not free:
        return None
    rest = [a - sum(f < a for f in free) for a in node.axes_reduced if a not in free]
    out = g.reduce(node.op, drop_axes(node.x, free), rest)
    count = prod(node.x.shape[a] for a in free if a in node.axes_reduced)
    repeated = [k for k, a in enumerate(kept_axes(node)) if a in free]
    return restored(scaled(out, count) if node.op == "sum" else out, repeated, node.shape)


def _sum_of_repeated(draw: Draw) -> Node:
    x = draw.row((4, 3, 2), (draw.pick((0, 1, 2)),))
    axes = draw.pick(((0,), (1,), (0, 1), (1, 2), (0, 1, 2)))
    return g.reduce(draw.pick(("sum", "max")), x, axes)


def _not_repeated(draw: Draw) -> Iterator[Node]:
    yield g.reduce("sum", draw.tensor((4, 3)), (1,))
    yield g.reduce("prod", draw.row((4, 3), (1,)), (0,))


def _of_concat(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Reduce)
    parts = node.x
    if not isinstance(parts, g.Concat) or parts.axis not in node.axes_reduced or not node.size:
        return None
    out = [g.reduce(node.op, x, node.axes_reduced) for x in parts.xs if x.size]
    combine = REDUCTIONS[node.op].combine
    return reduce(lambda a, b: g.binary(combine, a, b), out) if out else None


def _sum_of_joined(draw: Draw) -> Node:
    parts = [draw.tensor((n, 3)) for n in (2, 1, 4)]
    return g.reduce(draw.pick(("sum", "max", "min")), g.concat(parts, 0), draw.pick(((0,), (0, 1))))


def _sum_along_joined(draw: Draw) -> Iterator[Node]:
    yield g.reduce("sum", g.concat([draw.tensor((2, 3)), draw.tensor((4, 3))], 0), (1,))


# ------------------------------------------------------------------------------ through arithmetic


def _scale_out(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Reduce)
    x = node.x
    if node.op != "sum" or not node.size or not x.size:
        return None
    if isinstance(x, g.Unary) and x.op == "neg":
        return g.unary("neg", g.reduce("sum", x.x, node.axes_reduced))
    factors = _factors(x)
    for n, (op, factor) in reversed(list(enumerate(factors))):
        depends = dependent_axes(factor)
        free = [a for a in node.axes_reduced if a not in depends]
        others = factors[:n] + factors[n + 1 :]
        if prod(x.shape[a] for a in free) < 2 or not others or others[0][0] == "div":
            continue
        big = others[0][1]
        for how, other in others[1:]:
            big = g.binary(how, big, other)
        rest = [a - sum(f < a for f in free) for a in node.axes_reduced if a not in free]
        inner = g.reduce("sum", big, free)
        return g.reduce("sum", g.binary(op, inner, drop_axes(factor, free)), rest)
    return None


def _factors(x: Node, depth: int = PRODUCT_DEPTH) -> list[tuple[str, Node]]:
    """`x` as a product, factors ("mul") and divisors ("div") in order; the first is a factor."""
    if not depth or not isinstance(x, g.Binary) or x.op not in ("mul", "div"):
        return [("mul", x)]
    second = _factors(x.b, depth - 1) if x.op == "mul" else [("div", x.b)]
    return [*_factors(x.a, depth - 1), *second]


def _scaled_sum(draw: Draw) -> Node:
    shape = (4, 3, 2)
    x = draw.tensor(shape)
    row = draw.row(shape, (1,))
    factor = draw.pick((draw.like(draw.number(), x), row))
    inner = ((0,), (2,), (0, 2)) if factor == row else ((0,), (2,), (0, 2), (0, 1))
    inside = draw.pick((g.binary("mul", x, factor), g.binary("mul", factor, x), g.unary("neg", x)))
    if draw.chance():
        inside = g.binary("div", x, draw.like(draw.number(), x))
    if draw.chance():
        inside = g.binary("mul", g.binary("mul", x, factor), draw.tensor(shape))
    return g.reduce("sum", inside, draw.pick(inner))


def _not_scaled(draw: Draw) -> Iterator[Node]:
    shape = (4, 3)
    x = draw.tensor(shape)
    yield g.reduce("sum", g.binary("mul", x, draw.row(shape, (1,))), (1,))
    yield g.reduce("sum", g.binary("div", draw.like(2.0, x), x), (1,))
    n = draw.tensor(shape, INT32)
    yield g.reduce("sum", g.binary("floor_div", n, like(3, n)), (1,))
    yield g.reduce("max", g.binary("mul", x, draw.like(-1.5, x)), (1,))


def _split_sum(node: Node, env: Env) -> Node | None:
    assert isinstance(node, g.Reduce)
    x, views = node.x, []
    if node.op != "sum" or not node.size or not x.size:
        return None
    if isinstance(x, g.View) and (not x.valid or x.fill == 0):
        views.append(x)
        x = x.x
    if not isinstance(x, g.Binary) or x.op not in ("add", "sub"):
        return None
    sides = list(x.operands)
    for v in views:
        sides = [through_view(s, v.shape, v.index, v.valid, 0) for s in sides]
    reduced = set(node.axes_reduced)
    if not _sums_in_closed_form(sides, x.operands[::-1], reduced) and not is_only_summed(x, env):
        return None
    return g.binary(x.op, *(g.reduce("sum", s, node.axes_reduced) for s in sides))


def _sums_in_closed_form(sides: Sequence[Node], others: Sequence[Node], reduced: set[int]) -> bool:
    """Whether a side is constant in the sum, or along part of it where the other is a product: a
    factor may then leave the sum."""
    for side, other in zip(sides, others, strict=True):
        varies = dependent_axes(side) & reduced
        scaled = isinstance(other, g.Binary) and other.op in ("mul", "div")
        if not varies or (scaled and varies < reduced):
            return True
    return False


def _sum_with_bias(draw: Draw) -> Node:
    shape = (6, 5)
    x = draw.tensor(shape)
    axis = draw.pick((0, 1))
    bias = draw.pick((draw.row(shape, (1 - axis,)), draw.like(draw.number(), x)))
    return g.reduce("sum", g.binary(draw.pick(("add", "sub")), x, bias), (axis,))


def _sum_of_two(draw: Draw) -> Iterator[Node]:
    x, y = draw.tensor((6, 5)), draw.tensor((6, 5))
    yield g.reduce("sum", g.binary("add", x, y), (1,))
    yield g.reduce("max", g.binary("add", x, draw.row((6, 5), (1,))), (1,))


_R = (g.Reduce,)

RULES = (
    Rule(
        "trivial-reduction",
        "Σ over one element = that element; over none = 0; of a constant = n·c",
        "exact",
        _R,
        _trivial,
        "max and min over nothing are left alone",
        _over_little,
        _over_something,
    ),
    Rule(
        "merge-reductions",
        "Σ_i Σ_j x = Σ_{i,j} x, and so for max, min, product, any, all, and for windows of windows",
        "reassociate",
        _R,
        _merge,
        "the same operation twice, borders filled with what does not count; the inner result used "
        "nowhere else",
        _two_reductions,
        _other_reduction,
    ),
    Rule(
        "reduce-through-view",
        "Σ view(x) = view(Σ x)",
        "exact",
        _R,
        _through_view,
        "the reduced axes enumerate axes of x, each position once",
        _of_reordered,
        _of_selected,
    ),
    Rule(
        "reduce-broadcast",
        "Σ_{n times} x = n·x; max of equal values is the value; Σ expand(x) = expand(Σ x)",
        "reassociate",
        _R,
        _of_broadcast,
        "the tensor does not depend on a reduced axis, or on one that is kept",
        _sum_of_repeated,
        _not_repeated,
    ),
    Rule(
        "reduce-concat",
        "Σ concat(x, y) = Σ x + Σ y; max concat(x, y) = max(max x, max y)",
        "reassociate",
        _R,
        _of_concat,
        "the joined axis is reduced",
        _sum_of_joined,
        _sum_along_joined,
    ),
    Rule(
        "scale-out-of-sum",
        "Σ c·x = c·Σ x; Σ x/c = (Σ x)/c; Σ x/c·y = (Σ x·y)/c; Σ −x = −Σ x",
        "finite",
        _R,
        _scale_out,
        "the factor does not depend on a reduced axis",
        _scaled_sum,
        _not_scaled,
    ),
    Rule(
        "split-sum",
        "Σ (x + y) = Σ x + Σ y",
        "finite",
        _R,
        _split_sum,
        "one of the sums has a closed form or moves into a contraction",
        _sum_with_bias,
        _sum_of_two,
    ),
)
