"""Sums over one axis of a tensor read at `loop + other variables`: windows, shifts and borders.

Windows at different shifts share all but a few elements: their common core is summed once and each
shift corrected at the edges. That is how the sum over a padded, strided or transposed convolution's
output becomes a plain sum and a few edge sums.
"""

from dataclasses import dataclass
from math import gcd

from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir.convolution import undivided
from fusewright.ir.graph import Node
from fusewright.ir.index import Cond, Index, Var

from .build import through_view
from .nest import Factor


@dataclass(frozen=True, slots=True)
class _Line:
    """Axis `axis` of x, position h, enters the sum for `shifts` where `conds(h, shifts)` hold.

    [outer] holds every h that enters for some shift, [core] those that enter for all. `outside` are
    conditions that do not depend on h.
    """

    axis: int
    h: Var
    shifts: tuple[Var, ...]
    conds: tuple[Cond, ...]
    outside: tuple[Cond, ...]
    outer: tuple[int, int]
    core: tuple[int, int]


def summed_window(f: Factor, v: Var) -> Factor | None:
    """`Σ_v f` with the core summed once, as a factor without v; None where that does not apply."""
    f = _every_nth(f, v)
    line = _line(f, v)
    if line is None:
        return None
    start, stop = line.core
    left, right = (line.outer[0], start - 1), (stop + 1, line.outer[1])
    edges = [e for e in (left, right) if e[0] <= e[1]]
    kept = [k for k in range(len(f.x.shape)) if k != line.axis]
    index = [f.index[k] for k in kept]
    if start > stop:
        return None
    core = _slice_sum(f.x, line.axis, start, stop)
    if not edges:
        return Factor(core, tuple(index), line.outside)
    total = g.expand(
        g.keep_axes(core, range(len(kept), len(kept) + len(line.shifts))),
        (*core.shape, *(u.extent for u in line.shifts)),
    )
    for edge in edges:
        total = g.binary("add", total, _edge_sum(f.x, line, edge))
    return Factor(total, (*index, *line.shifts), line.outside)


def summed_alone(f: Factor, v: Var) -> Factor | None:
    """`Σ_v f` along the one axis that v reads, all other axes of the tensor kept whole."""
    axes = [k for k, e in enumerate(f.index) if v in ix.variables(e)]
    if len(axes) != 1:
        return None
    inside = [c for c in f.valid if v in ix.variables(c.x)]
    shifts = [u for u in ix.variables(f.index[axes[0]], *(c.x for c in inside)) if u != v]
    if any(u in ix.variables(e) for k, e in enumerate(f.index) if k != axes[0] for u in shifts):
        return None
    kept = [k for k in range(len(f.x.shape)) if k != axes[0]]
    shape = (*(f.x.shape[k] for k in kept), *(u.extent for u in shifts), v.extent)
    out = ix.axes(shape)
    names: dict[Index, Index] = dict(zip((*shifts, v), out[len(kept) :], strict=True))
    at = dict(zip(kept, out, strict=False)) | {axes[0]: ix.substitute(f.index[axes[0]], names)}
    guards = ix.inside(at[axes[0]], f.x.shape[axes[0]])
    valid = ix.conjunction((*ix.substitute_conds(tuple(inside), names), *guards))
    read = through_view(f.x, shape, [at[k] for k in range(len(at))], valid)
    total = g.reduce("sum", read, (len(shape) - 1,))
    index = (*(f.index[k] for k in kept), *shifts)
    return Factor(total, index, tuple(c for c in f.valid if c not in inside))


def _every_nth(f: Factor, v: Var) -> Factor:
    """`f` reading only the positions that v reaches, where those are some steps apart."""
    axes = [k for k, e in enumerate(f.index) if v in ix.variables(e)]
    constant, terms = ix.parts(f.index[axes[0]]) if len(axes) == 1 else (0, ())
    step = gcd(*(c for c, _ in terms))
    if step < 2:
        return f
    axis, start = axes[0], constant % step
    shape = list(f.x.shape)
    shape[axis] = (shape[axis] - start + step - 1) // step
    at = list(ix.axes(tuple(shape)))
    at[axis] = at[axis] * step + start
    inner = ix.add(ix.const(constant // step), *(ix.mul(a, c // step) for c, a in terms))
    index = (*f.index[:axis], inner, *f.index[axis + 1 :])
    return Factor(through_view(f.x, tuple(shape), at), index, f.valid)


def _line(f: Factor, v: Var) -> _Line | None:
    axes = [k for k, e in enumerate(f.index) if v in ix.variables(e)]
    if len(axes) != 1:
        return None
    e, extent = f.index[axes[0]], f.x.shape[axes[0]]
    inner, step = undivided(e)
    exact = ix.Cond("eq", ix.mod(inner, step))
    sign = ix.coefficient(inner, v)
    if sign not in (1, -1) or (step > 1 and exact not in f.valid) or extent < 2:
        return None
    h = Var("h", extent)
    value = (step * h - (inner - v * sign)) * sign
    moved = [c for c in f.valid if v in ix.variables(c.x) and c != exact]
    conds = ix.conjunction(
        (*ix.substitute_conds(tuple(moved), {v: value}), *ix.inside(value, v.extent))
    )
    outside = [c for c in f.valid if v not in ix.variables(c.x)]
    outside += [c for c in conds if h not in ix.variables(c.x)]
    inside = tuple(c for c in conds if h in ix.variables(c.x))
    return _bounded(axes[0], h, inside, ix.conjunction(outside))


def _bounded(axis: int, h: Var, conds: tuple[Cond, ...], outside: tuple[Cond, ...]) -> _Line | None:
    outer, core = (0, h.extent - 1), (0, h.extent - 1)
    for c in conds:
        a = ix.coefficient(c.x, h)
        if c.kind != "ge" or not a:
            return None
        rest = c.x - h * a
        if a > 0:
            outer = (max(outer[0], -(rest.hi // a)), outer[1])
            core = (max(core[0], -(rest.lo // a)), core[1])
        else:
            outer = (outer[0], min(outer[1], rest.hi // -a))
            core = (core[0], min(core[1], rest.lo // -a))
    shifts = tuple(u for u in ix.variables(*(c.x for c in conds)) if u != h)
    return _Line(axis, h, shifts, conds, outside, outer, core)


def _slice_sum(x: Node, axis: int, start: int, stop: int) -> Node:
    """The sum of x over positions start..stop of `axis`, which vanishes."""
    shape = (*x.shape[:axis], stop - start + 1, *x.shape[axis + 1 :])
    index = [e + (start if k == axis else 0) for k, e in enumerate(ix.axes(shape))]
    return g.reduce("sum", through_view(x, shape, index), (axis,))


def _edge_sum(x: Node, line: _Line, edge: tuple[int, int]) -> Node:
    """What positions edge[0]..edge[1] add for each shift: axes of x without the line's, shifts."""
    kept = [k for k in range(len(x.shape)) if k != line.axis]
    length = edge[1] - edge[0] + 1
    shape = (*(x.shape[k] for k in kept), *(u.extent for u in line.shifts), length)
    out = ix.axes(shape)
    names: dict[Index, Index] = dict(zip(line.shifts, out[len(kept) :], strict=False))
    names[line.h] = out[-1] + edge[0]
    at = dict(zip(kept, out, strict=False)) | {line.axis: out[-1] + edge[0]}
    read = through_view(
        x, shape, [at[k] for k in range(len(at))], ix.substitute_conds(line.conds, names)
    )
    return g.reduce("sum", read, (len(shape) - 1,))
