"""Contractions as views of products and convolutions that libraries have.

Rewriting leaves contractions that are convolutions in all but layout: a slice of one, one with its
taps reversed, with several axes of channels or none, with padding on one side. `as_library_form`
writes such a contraction as a view of one that `ir.convolution` or `ir.matmul` knows, over views of
its operands. Whether that pays is the cost model's business, how it is called the scheduler's.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from . import graph as g
from . import index as ix
from . import offsets
from .convolution import (
    convolution,
    recognise,
    transposed_convolution,
    transposed_extent,
    undivided,
)
from .index import Index, Var
from .matmul import roles

# A library's window axes: conv1d to conv3d.
SPATIAL = 3
# How much larger than the contraction a convolution may be that contains it, and a weight's layout
# than the weight.
WASTE = 1.5


def as_library_form(c: g.Contract) -> g.Node | None:
    """`c` as a (batched) matrix product or a convolution: itself if it is one, else a view of one;
    None if no such form exists."""
    if roles(c) is not None or recognise(c) is not None:
        return c
    if not c.size or not all(c.reduced):
        return None
    swapped = replace(
        c, a=c.b, b=c.a, a_index=c.b_index, b_index=c.a_index, a_valid=c.b_valid, b_valid=c.a_valid
    )
    forms = (f for x in (c, swapped) if (f := _form(x)) is not None)
    return next(forms, None)


@dataclass(frozen=True, slots=True)
class _Axis:
    """An axis of the windowed operand, read at `(stride·i + dilation·r + start) // division`.

    `i` is a variable of the result, `r` a summed one; with both the axis is a window's, and so is
    one that is divided: its window has one tap.
    """

    extent: int
    start: int
    i: Var | None = None
    r: Var | None = None
    stride: int = 1
    dilation: int = 1
    division: int = 1

    @property
    def spread(self) -> Index:
        """The index before the division."""
        terms = [
            v * s for v, s in ((self.i, self.stride), (self.r, self.dilation)) if v is not None
        ]
        return ix.add(ix.const(self.start), *terms)

    @property
    def is_window(self) -> bool:
        return self.i is not None and (self.r is not None or self.division > 1)

    @property
    def taps(self) -> int:
        return 1 if self.r is None else self.r.extent

    def turned(self) -> "_Axis":
        """The axis with its summed variable counted from the other end."""
        assert self.r is not None
        start = self.start + self.dilation * (self.r.extent - 1)
        return replace(self, start=start, dilation=-self.dilation)


@dataclass(frozen=True, slots=True)
class _Window:
    """A window axis as a library takes it: what is read of the operand (`first`, `size`), the
    padding (and output padding), and where the contraction's result begins in the library's."""

    axis: _Axis
    first: int
    size: int
    padding: int
    offset: int
    extra: int = 0


def _form(c: g.Contract) -> g.Node | None:
    """The form with a as the windowed operand, b as the weight."""
    split = _grouped(c)
    if split is not None:
        inner, index = split
        form = _ungrouped_form(inner)
        if not isinstance(form, g.View):
            return None
        at: dict[Index, Index] = dict(zip(form.axes, index, strict=True))
        return g.view(form.x, c.shape, tuple(ix.substitute(e, at) for e in form.index))
    return _ungrouped_form(c)


def _grouped(c: g.Contract) -> tuple[g.Contract, tuple[Index, ...]] | None:
    """`c` with the groups of a's channels as an axis of their own, and how it is read back.

    Groups show as an axis of a that is read at `per · (v // outer) + r`.
    """
    for k, e in enumerate(c.a_index):
        constant, terms = ix.parts(e)
        found = [(f, a) for f, a in terms if isinstance(a, ix.Div) and a.x in c.axes]
        rest = [(f, a) for f, a in terms if (f, a) not in found]
        if len(found) != 1 or constant:
            continue
        per, part = found[0]
        channels = [r for r in c.reduced_axes if isinstance(r, Var) and (1, r) in rest]
        width = prod(r.extent for r in channels)
        if not isinstance(part, ix.Div) or len(rest) != len(channels) or width != per:
            continue
        if isinstance(part.x, Var) and not part.x.extent % part.divisor and len(channels) < 2:
            return _with_groups(c, k, part.x, part.divisor, per)
    return None


def _with_groups(
    c: g.Contract, k: int, v: Var, outer: int, per: int
) -> tuple[g.Contract, tuple[Index, ...]] | None:
    at, groups = c.axes.index(v), v.extent // outer
    shape = (*c.shape[:at], groups, outer, *c.shape[at + 1 :])
    out = ix.axes(shape)
    names: dict[Index, Index] = {v: out[at] * outer + out[at + 1]}
    old = zip((*c.axes[:at], *c.axes[at + 1 :]), (*out[:at], *out[at + 2 :]), strict=True)
    names |= {w: e for w, e in old if isinstance(w, Var)}
    laid_out = (*c.a.shape[:k], groups, per, *c.a.shape[k + 1 :])
    *lead, group, inner = ix.axes(laid_out)[: k + 2]
    a = g.view(c.a, laid_out, (*lead, group * per + inner, *ix.axes(laid_out)[k + 2 :]))
    channel = next((r for r in c.reduced_axes if r in ix.variables(c.a_index[k])), ix.const(0))
    a_index = [ix.substitute(e, names) for e in c.a_index]
    node = g.contract(
        a,
        c.b,
        shape,
        c.reduced,
        (*a_index[:k], out[at], channel, *a_index[k + 1 :]),
        tuple(ix.substitute(e, names) for e in c.b_index),
        ix.substitute_conds(c.a_valid, names),
        ix.substitute_conds(c.b_valid, names),
        c.family,
        c.dtype,
    )
    assert isinstance(node, g.Contract)
    return node, (*c.axes[:at], ix.div(v, outer), ix.mod(v, outer), *c.axes[at + 1 :])


def _ungrouped_form(c: g.Contract) -> g.Node | None:
    axes = _axes_of(c)
    if axes is None or not _variables_fit(c, axes):
        return None
    spatial = [x for x in axes if x.is_window]
    if not spatial:
        return None if c.a_valid else _as_product(c, axes)
    if any(x.i in _shared(c, axes) for x in spatial):
        return None
    transposed = any(x.division > 1 for x in spatial)
    if len(spatial) > SPATIAL or (transposed and any(x.stride > 1 for x in spatial)):
        return None
    guards = [cond for x in axes if x.is_window for cond in _guards(x)]
    if set(c.a_valid) != set(ix.conjunction(guards)):
        return None
    reversed_ = [x.r for x in axes if x.r is not None and _is_reversed(x, transposed)]
    axes = [x.turned() if x.r in reversed_ else x for x in axes]
    windows = [(_transposed_window if transposed else _window)(x) for x in axes if x.is_window]
    found = [w for w in windows if w is not None]
    return _written(c, axes, found, reversed_, transposed) if len(found) == len(windows) else None


def _is_reversed(x: _Axis, transposed: bool) -> bool:
    """Whether a library reads the axis the other way: forwards, in transposed windows backwards."""
    return (x.dilation > 0) if transposed and x.is_window else (x.dilation < 0)


def _guards(x: _Axis) -> Iterable[ix.Cond]:
    yield ix.equals(ix.mod(x.spread, x.division), 0)
    yield from ix.inside(ix.div(x.spread, x.division), x.extent)


def _axes_of(c: g.Contract) -> list[_Axis] | None:
    """The axes of a, or None where one is read at something else than windows have."""
    out = []
    for e, n in zip(c.a_index, c.a.shape, strict=True):
        inner, division = undivided(e)
        start, terms = ix.parts(inner)
        mine = [(f, v) for f, v in terms if v in c.axes and isinstance(v, Var)]
        summed = [(f, v) for f, v in terms if v in c.reduced_axes and isinstance(v, Var)]
        if len(mine) > 1 or len(summed) > 1 or len(mine) + len(summed) != len(terms):
            return None
        x = _Axis(n, start, division=division)
        if mine:
            x = replace(x, i=mine[0][1], stride=mine[0][0])
        if summed:
            x = replace(x, r=summed[0][1], dilation=summed[0][0])
        if x.stride < 1 or (division > 1 and x.i is None):
            return None
        if x.r is None and division > 1:
            x = replace(x, dilation=-1)
        out.append(x)
    return out


def _variables_fit(c: g.Contract, axes: Sequence[_Axis]) -> bool:
    """Whether a reads each of its variables once, and both read every summed variable."""
    mine = [v for x in axes for v in (x.i, x.r) if v is not None]
    weight = _weight_variables(c)
    out, summed = set(ix.variables(*c.axes)), set(ix.variables(*c.reduced_axes))
    once = len(set(mine)) == len(mine)
    return once and summed <= set(mine) and summed <= weight and out <= set(mine) | weight


def _weight_variables(c: g.Contract) -> set[Var]:
    return set(ix.variables(*c.b_index, *(cond.x for cond in c.b_valid)))


def _shared(c: g.Contract, axes: Sequence[_Axis]) -> list[Var]:
    """Variables of the result that both operands read."""
    weight = _weight_variables(c)
    return [x.i for x in axes if x.i is not None and x.i in weight]


def _window(x: _Axis) -> _Window | None:
    """A window of a convolution; padding is the same on both sides, so a result may lie inside."""
    assert x.i is not None
    reach = x.dilation * (x.taps - 1)
    low, high = x.start, x.start + x.stride * (x.i.extent - 1) + reach
    if low >= 0 and high < x.extent:
        return _Window(x, low, high - low + 1, 0, 0)
    first = max(low, 0)
    left, right = max(-low, 0), max(high - x.extent + 1, 0)
    offset = -(-max(right - left, 0) // x.stride)
    padding, size = left + offset * x.stride, min(x.extent, high + 1) - first
    whole = (size + 2 * padding - reach - 1) // x.stride + 1
    return _Window(x, first, size, padding, offset) if whole <= WASTE * x.i.extent else None


def _transposed_window(x: _Axis) -> _Window | None:
    """A window of a transposed convolution, which crops both ends of what it scatters alike."""
    assert x.i is not None
    taps, s, d = x.taps, x.division, -x.dilation
    first = max(-(-(x.start - d * (taps - 1)) // s), 0)
    n, start = min(x.extent, (x.start + x.i.extent - 1) // s + 1) - first, x.start - s * first
    if n < 1:
        return None
    for padding in range(min(start, d * (taps - 1)), -1, -1):
        offset = start - padding
        whole = transposed_extent(n, taps, s, padding, d, 0)
        extra = max(offset + x.i.extent - whole, 0)
        if extra < max(s, d):
            fits = whole + extra <= WASTE * x.i.extent
            return _Window(x, first, n, padding, offset, extra) if fits else None
    return None


# ------------------------------------------------------------------------------------------ writing


def _written(
    c: g.Contract,
    axes: Sequence[_Axis],
    windows: Sequence[_Window],
    reversed_: Sequence[Var],
    transposed: bool,
) -> g.Node | None:
    """The view of the convolution."""
    groups = _shared(c, axes)
    batch = [x.i for x in axes if x.i is not None and not x.is_window and x.i not in groups]
    channels = [x.r for x in axes if x.r is not None and not x.is_window]
    outer = [v for v in c.axes if isinstance(v, Var) and v not in [x.i for x in axes]]
    x = _operand(c, axes, windows, batch, [*groups, *channels])
    taps = [() if w.axis.r is None else (w.axis.r,) for w in windows]
    rows = ([*groups, *channels], outer) if transposed else ([*groups, *outer], channels)
    w = _weight(c, rows, taps, reversed_)
    if w.size > WASTE * c.b.size:
        return None  # windows of b laid out one by one
    whole = _convolution(x, w, windows, _extent(groups), transposed)
    space = (w.axis.i + w.offset for w in windows if w.axis.i is not None)
    return g.view(whole, c.shape, (_flat(batch), _flat([*groups, *outer]), *space))


def _flat(variables: Sequence[Var]) -> Index:
    return offsets.flatten(variables, offsets.row_major(tuple(v.extent for v in variables)))


def _split(e: Index, variables: Sequence[Var]) -> Mapping[Index, Index]:
    """The variables as digits of one axis `e` over all of them."""
    shape = tuple(v.extent for v in variables)
    return dict(zip(variables, offsets.unflatten(e, shape), strict=True))


def _extent(variables: Sequence[Var]) -> int:
    return prod(v.extent for v in variables)


def _operand(
    c: g.Contract,
    axes: Sequence[_Axis],
    windows: Sequence[_Window],
    batch: Sequence[Var],
    channels: Sequence[Var],
) -> g.Node:
    """a as (batch, channels, *spatial)."""
    shape = (_extent(batch), _extent(channels), *(w.size for w in windows))
    n, k, *space = ix.axes(shape)
    digits = {**_split(n, batch), **_split(k, channels)}
    place = {w.axis: s + w.first for w, s in zip(windows, space, strict=True)}
    index = (place[x] if x.is_window else ix.substitute(x.spread, digits) for x in axes)
    return g.view(c.a, shape, index)


def _weight(
    c: g.Contract,
    rows: tuple[Sequence[Var], Sequence[Var]],
    taps: Sequence[Sequence[Var]],
    reversed_: Sequence[Var],
) -> g.Node:
    """b as (*rows, *taps), each of the two rows one axis, its reversed variables turned back."""
    turned: dict[Index, Index] = {v: ix.const(v.extent - 1) - v for v in reversed_}
    index = [ix.substitute(e, turned) for e in c.b_index]
    valid = ix.substitute_conds(c.b_valid, turned)
    return _laid_out(c.b, index, valid, (*rows, *taps))


def _convolution(
    x: g.Node, w: g.Node, windows: Sequence[_Window], groups: int, transposed: bool
) -> g.Node:
    padding = [v.padding for v in windows]
    if not transposed:
        stride = [v.axis.stride for v in windows]
        return convolution(x, w, stride, padding, [v.axis.dilation for v in windows], groups)
    stride = [v.axis.division for v in windows]
    dilation = [-v.axis.dilation for v in windows]
    extra = [v.extra for v in windows]
    return transposed_convolution(x, w, stride, padding, dilation, groups, extra)


def _as_product(c: g.Contract, axes: Sequence[_Axis]) -> g.Node | None:
    """The view of a batched product: variables by role, each role one axis."""
    shared = _shared(c, axes)
    rows = [x.i for x in axes if x.i is not None and x.i not in shared]
    inner = [x.r for x in axes if x.r is not None]
    columns = [v for v in c.axes if isinstance(v, Var) and v not in (*shared, *rows)]
    a = _laid_out(c.a, c.a_index, (), (shared, rows, inner))
    b = _laid_out(c.b, c.b_index, c.b_valid, (shared, inner, columns))
    if b.size > WASTE * c.b.size:
        return None
    i, (r,) = ix.axes((*a.shape[:2], b.shape[2])), g.reduced_axes(a.shape[2:])
    whole = g.contract(a, b, (*a.shape[:2], b.shape[2]), a.shape[2:], (*i[:2], r), (i[0], r, i[2]))
    return g.view(whole, c.shape, (_flat(shared), _flat(rows), _flat(columns)))


def _laid_out(
    x: g.Node, index: Sequence[Index], valid: ix.Conds, groups: Sequence[Sequence[Var]]
) -> g.Node:
    """`x[index]` with one axis per group of variables."""
    shape = tuple(_extent(v) for v in groups)
    at: dict[Index, Index] = {}
    for e, variables in zip(ix.axes(shape), groups, strict=True):
        at |= _split(e, variables)
    read = tuple(ix.substitute(e, at) for e in index)
    return g.view(x, shape, read, ix.substitute_conds(valid, at))
