"""From a nest to the cheapest graph that computes it.

A loop that only one factor depends on is summed in that factor first, overlapping windows are
summed once and corrected at their edges, products of more than two factors are taken two by two in
the cheapest order. Alternatives are written out as nodes and compared by the cost model.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import combinations
from math import prod

from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir.dtypes import DType, compute_type
from fusewright.ir.graph import Node
from fusewright.ir.index import Index, Var
from fusewright.target.cost import Cost, measure

from .build import like, restored, through_view
from .nest import Factor, Nest, changes, simplified
from .windows import summed_alone, summed_window

# Changes of variables made one after the other: one or two per spatial axis are needed.
CHANGES = 8
# A product of more factors than this is left as it is.
FACTORS = 6


def best(nest: Nest) -> Node | None:
    """The cheapest graph found for `nest`; None when it has too many factors."""
    nest = simplified(nest)
    if len(nest.factors) > FACTORS:
        return None
    leaves = frozenset(f.x for f in nest.factors)
    node = written(nest)
    for _ in range(CHANGES):
        others = changes(nest) if len(nest.factors) == 2 else ()
        options = [(cost_above(written(n), leaves), k, n) for k, n in enumerate(others)]
        if not options or min(options)[0] >= cost_above(node, leaves):
            break
        nest = min(options)[2]
        node = written(nest)
    return node


def cost_above(root: Node, leaves: frozenset[Node]) -> Cost:
    """The measure of the nodes of `root` that are not `leaves` or below them."""
    seen: set[Node] = set()
    stack = [root]
    while stack:
        n = stack.pop()
        if n not in seen and n not in leaves:
            seen.add(n)
            stack.extend(n.operands)
    return measure(seen)


def is_cheaper(a: Node, b: Node, leaves: frozenset[Node]) -> bool:
    """Whether `a` takes less work than `b`, both computed from `leaves`."""
    return cost_above(a, leaves).work < cost_above(b, leaves).work


def cheapest(options: Iterable[Node], leaves: frozenset[Node]) -> Node:
    return min(options, key=lambda n: cost_above(n, leaves))


def written(nest: Nest) -> Node:
    """A graph for `nest`: loops of single factors first, then the products."""
    used = {v for f in nest.factors for v in f.variables}
    idle = [k for k, v in enumerate(nest.axes) if isinstance(v, Var) and v not in used]
    kept = [k for k in range(len(nest.shape)) if k not in idle]
    small = tuple(nest.shape[k] for k in kept)
    names = {nest.axes[k]: v for k, v in zip(kept, ix.axes(small), strict=True)}
    node = _with_sums_first(replace(nest.substitute(_variables_only(names)), shape=small))
    node = g.cast(node, nest.dtype)
    if nest.scale != 1:
        node = g.binary("mul", node, like(nest.scale, node))
    return restored(node, idle, nest.shape) if idle else node


def _variables_only(names: dict[Index, Index]) -> dict[Index, Index]:
    return {v: e for v, e in names.items() if isinstance(v, Var)}


def _with_sums_first(nest: Nest) -> Node:
    if len(nest.factors) < 2:
        return _product(nest)
    factors, loops = list(nest.factors), list(nest.loops)
    for k, f in enumerate(factors):
        others = [h for j, h in enumerate(factors) if j != k]
        solo = tuple(v for v in loops if not any(v in h.variables for h in others))
        if solo:
            factors[k] = presummed(f, solo)
            loops = [v for v in loops if v not in solo]
    return _product(replace(nest, factors=tuple(factors), loops=tuple(loops)))


def _product(nest: Nest) -> Node:
    match len(nest.factors):
        case 0:
            return g.const(1, nest.dtype, nest.shape)
        case 1:
            return _summed(nest.factors[0], nest.loops, nest.shape)
        case 2:
            return _contraction(nest)
        case _:
            return _in_best_order(nest)


def _wide(f: Factor, dtype: DType) -> Factor:
    return replace(f, x=g.cast(f.x, dtype))


def _common_type(factors: Sequence[Factor]) -> DType:
    return max((f.x.dtype for f in factors), key=lambda d: d.bits)


def _contraction(nest: Nest) -> Node:
    dtype = _common_type(nest.factors)
    a, b = (_wide(f, dtype) for f in nest.factors)
    if not nest.loops:
        sides = [through_view(f.x, nest.shape, f.index, f.valid) for f in (a, b)]
        return g.binary("mul", *sides)
    extents = tuple(v.extent for v in nest.loops)
    names: dict[Index, Index] = dict(zip(nest.loops, g.reduced_axes(extents), strict=True))
    a, b = a.substitute(names), b.substitute(names)
    return g.contract(
        a.x, b.x, nest.shape, extents, a.index, b.index, a.valid, b.valid, nest.family
    )


# ------------------------------------------------------------------------------- products of many


def _in_best_order(nest: Nest) -> Node:
    """Two factors contracted first, then the rest likewise: the pair with the fewest operations."""
    pairs = combinations(range(len(nest.factors)), 2)
    j, k = min(pairs, key=lambda pair: _price(nest, pair))
    merged, loops = _merged(nest, j, k)
    rest = [f for i, f in enumerate(nest.factors) if i not in (j, k)]
    return _with_sums_first(replace(nest, factors=(*rest, merged), loops=loops))


def _price(nest: Nest, pair: tuple[int, int]) -> tuple[int, int]:
    """Operations of the cheapest completion that begins with `pair`, and the pair's result."""
    groups = [frozenset(f.variables) for f in nest.factors]
    return _chain_price(groups, frozenset(nest.loops), pair)


def _chain_price(
    groups: list[frozenset[Var]], loops: frozenset[Var], pair: tuple[int, int]
) -> tuple[int, int]:
    j, k = pair
    rest = [s for i, s in enumerate(groups) if i not in pair]
    elsewhere = frozenset().union(*rest)
    both = groups[j] | groups[k]
    left = frozenset(v for v in both if v not in loops or v in elsewhere)
    own = prod(v.extent for v in both)
    if not rest:
        return own, 0
    after = [*rest, left]
    follow = min(_chain_price(after, loops, p) for p in combinations(range(len(after)), 2))
    return own + follow[0], prod(v.extent for v in left)


def _merged(nest: Nest, j: int, k: int) -> tuple[Factor, tuple[Var, ...]]:
    """Factors j and k contracted over the loops no other factor needs, and the loops that stay."""
    pair = (nest.factors[j], nest.factors[k])
    rest = [f for i, f in enumerate(nest.factors) if i not in (j, k)]
    needed = {v for f in rest for v in f.variables}
    inner = tuple(v for v in nest.loops if v not in needed and any(v in f.variables for f in pair))
    axes = [v for v in (*nest.axes, *nest.loops) if isinstance(v, Var) and v not in inner]
    axes = [v for v in axes if any(v in f.variables for f in pair)]
    shape = tuple(v.extent for v in axes)
    names: dict[Index, Index] = dict(zip(axes, ix.axes(shape), strict=True))
    sub = replace(nest, shape=shape, loops=inner, factors=pair, scale=1).substitute(names)
    node = _with_sums_first(sub)
    return Factor(node, tuple(axes)), tuple(v for v in nest.loops if v not in inner)


# ------------------------------------------------------------------------------- sums of one factor


def _summed(f: Factor, loops: Sequence[Var], shape: tuple[int, ...]) -> Node:
    """`Σ_loops f` over the output axes of `shape`."""
    if not loops:
        return through_view(f.x, shape, f.index, f.valid)
    f = _wide(f, compute_type(f.x.dtype))
    leaves = frozenset((f.x,))
    options = [_summed_at_once(f, loops, shape)]
    plain = _plain_loops(f, loops)
    if plain:
        less = Factor(
            g.reduce("sum", f.x, plain),
            tuple(e for k, e in enumerate(f.index) if k not in plain),
            f.valid,
        )
        options.append(_summed(less, [v for v in loops if v not in plain.values()], shape))
    for v in loops if not plain else ():
        for partly in (summed_window(f, v), summed_alone(f, v)):
            if partly is not None:
                rest = [w for w in loops if w != v]
                options.append(_summed(partly, rest, shape))
    return cheapest(options, leaves)


def _plain_loops(f: Factor, loops: Sequence[Var]) -> dict[int, Var]:
    """Axes of the tensor that a loop of its own runs over from end to end, without conditions."""
    out = {}
    for k, e in enumerate(f.index):
        others = [h for j, h in enumerate(f.index) if j != k]
        free = e not in ix.variables(*others, *(c.x for c in f.valid))
        if isinstance(e, Var) and e in loops and e.extent == f.x.shape[k] and free:
            out[k] = e
    return out


def _summed_at_once(f: Factor, loops: Sequence[Var], shape: tuple[int, ...]) -> Node:
    domain = (*shape, *(v.extent for v in loops))
    out = ix.axes(domain)
    names: dict[Index, Index] = dict(zip(loops, out[len(shape) :], strict=True))
    f = f.substitute(names)
    read = through_view(f.x, domain, f.index, f.valid)
    return g.reduce("sum", read, range(len(shape), len(domain)))


# ----------------------------------------------------------------------- sums within a product


def presummed(f: Factor, solo: tuple[Var, ...]) -> Factor:
    """`Σ_solo f` as a factor that reads a smaller tensor."""
    options = [p for whole in (True, False) if (p := _presummed(f, solo, whole)) is not None]
    leaves = frozenset((f.x,))
    return min(options, key=lambda p: (cost_above(p.x, leaves).work, p.x.size))


def _presummed(f: Factor, solo: tuple[Var, ...], whole: bool) -> Factor | None:
    """The sum laid out over one axis per axis of x where possible (`whole`), else per variable.

    Axes that no solo loop reads are kept as they are, unless fewer of their elements are read.
    """
    inner_conds = [c for c in f.valid if any(v in ix.variables(c.x) for v in solo)]
    variables: dict[Var, None] = {}
    kept: list[tuple[int, Index, int]] = []  # axis of x, outer index, extent of the new axis
    for k, e in enumerate(f.index):
        own = ix.variables(e)
        reads_solo = any(v in own for v in solo)
        rest = [v for v in own if v not in solo]
        if not reads_solo and own and not _is_narrow(f, k):
            kept.append((k, e, f.x.shape[k]))
        elif reads_solo and whole and rest:
            base = _shift(e, solo)
            if base is None:
                return None
            kept.append((k, base - base.lo, base.hi - base.lo + 1))
        else:
            variables.update(dict.fromkeys(rest))
    return _laid_out(f, solo, kept, variables, inner_conds)


def _is_narrow(f: Factor, k: int) -> bool:
    """Whether the factor reads few positions of axis k, without conditions on them."""
    own = ix.variables(f.index[k])
    guarded = any(v in own for c in f.valid for v in ix.variables(c.x))
    return not guarded and prod(v.extent for v in own) < f.x.shape[k]


def _shift(e: Index, solo: tuple[Var, ...]) -> Index | None:
    """`e` without its terms in `solo`; None where an atom mixes both."""
    terms = [(c, a) for c, a in ix.parts(e)[1] if a not in solo]
    if any(v in solo for _, a in terms for v in ix.variables(a)):
        return None
    return ix.add(ix.const(0), *(ix.mul(a, c) for c, a in terms))


def _laid_out(
    f: Factor,
    solo: tuple[Var, ...],
    kept: list[tuple[int, Index, int]],
    variables: dict[Var, None],
    inner_conds: list[ix.Cond],
) -> Factor | None:
    """The sum over axes `kept` (rewritten where shifted) and `variables`."""
    outer_conds = [c for c in f.valid if c not in inner_conds]
    extra = dict(variables)
    moved: list[tuple[ix.Cond, tuple[int, int] | None]] = []
    for c in inner_conds:
        moved.append((c, _expressed(c, f, kept, solo)))
        if moved[-1][1] is None:
            extra.update(dict.fromkeys(v for v in ix.variables(c.x) if v not in solo))
    shape = (*(n for _, _, n in kept), *(v.extent for v in extra))
    out = ix.axes(shape)
    names: dict[Index, Index] = dict(zip(extra, out[len(kept) :], strict=True))
    index: list[Index] = [ix.substitute(e, names) for e in f.index]
    guards: list[ix.Cond] = []
    for position, (k, _, _) in enumerate(kept):
        e = f.index[k]
        if any(v in ix.variables(e) for v in solo):
            lowest = _shift(e, solo)
            assert lowest is not None
            index[k] = out[position] + lowest.lo + (e - lowest)
        else:
            index[k] = out[position]
    for c, multiple in moved:
        if multiple is None:
            guards += ix.substitute_conds((c,), names)
        else:
            axis, factor = multiple
            rest = c.x - f.index[axis] * factor
            guards.append(ix.Cond(c.kind, rest + index[axis] * factor))
    # Positions that no outer reader asks for may lie outside x.
    guards += [c for e, n in zip(index, f.x.shape, strict=True) for c in ix.inside(e, n)]
    inner = Factor(f.x, tuple(index), ix.conjunction(guards))
    node = _summed(inner, solo, shape)
    outer_index = (*(base for _, base, _ in kept), *extra)
    return Factor(node, outer_index, ix.conjunction(outer_conds))


def _expressed(
    c: ix.Cond, f: Factor, kept: list[tuple[int, Index, int]], solo: tuple[Var, ...]
) -> tuple[int, int] | None:
    """(axis, factor) when `c.x` is a multiple of a kept axis' index, up to solo loops."""
    for k, _, _ in kept:
        for factor in (1, -1):
            rest = c.x - f.index[k] * factor
            if all(v in solo for v in ix.variables(rest)):
                return k, factor
    return None
