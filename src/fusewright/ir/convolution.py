"""Convolutions as contractions, and back: the index maps of every (transposed) convolution.

`convolution` and `transposed_convolution` write a Contract; `recognise` finds the parameters of a
Contract that one of them would write, so that it can be handed to a library. Nothing else may build
contractions of family "convolution" from parameters.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from . import index as ix
from .graph import Contract, Node, contract, reduced_axes
from .index import Index

Ints = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters of torch's conv{1,2,3}d or conv_transpose{1,2,3}d, one int per spatial axis."""

    stride: Ints
    padding: Ints
    dilation: Ints
    groups: int
    transposed: bool = False
    output_padding: Ints = ()


def output_extent(n: int, k: int, s: int, p: int, d: int) -> int:
    """Output extent of a convolution along one axis."""
    return (n + 2 * p - d * (k - 1) - 1) // s + 1


def transposed_extent(n: int, k: int, s: int, p: int, d: int, op: int) -> int:
    """Output extent of a transposed convolution along one axis."""
    return (n - 1) * s - 2 * p + d * (k - 1) + op + 1


def convolution(
    x: Node,
    w: Node,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Node:
    """x (N, C, *n) with w (O, C/groups, *k) gives (N, O, *out)."""
    kernel, per_group = w.shape[2:], w.shape[1]
    spatial = tuple(
        output_extent(n, k, s, p, d)
        for n, k, s, p, d in zip(x.shape[2:], kernel, stride, padding, dilation, strict=True)
    )
    shape = (x.shape[0], w.shape[0], *spatial)
    i, r = ix.axes(shape), reduced_axes((per_group, *kernel))
    group = ix.div(i[1], w.shape[0] // groups) * per_group
    at = [
        i[2 + k] * s + r[1 + k] * d - p
        for k, (s, p, d) in enumerate(zip(stride, padding, dilation, strict=True))
    ]
    valid = ix.conjunction(c for e, n in zip(at, x.shape[2:], strict=True) for c in ix.inside(e, n))
    return contract(
        x,
        w,
        shape,
        (per_group, *kernel),
        (i[0], group + r[0], *at),
        (i[1], *r),
        valid,
        family="convolution",
    )


def transposed_convolution(
    x: Node,
    w: Node,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    output_padding: Sequence[int],
) -> Node:
    """x (N, C, *n) with w (C, O/groups, *k) gives (N, O, *out)."""
    kernel, per_group = w.shape[2:], x.shape[1] // groups
    spatial = tuple(
        transposed_extent(n, k, s, p, d, op)
        for n, k, s, p, d, op in zip(
            x.shape[2:], kernel, stride, padding, dilation, output_padding, strict=True
        )
    )
    shape = (x.shape[0], w.shape[1] * groups, *spatial)
    i, r = ix.axes(shape), reduced_axes((per_group, *kernel))
    channel = ix.div(i[1], w.shape[1]) * per_group + r[0]
    spread = [
        i[2 + k] - r[1 + k] * d + p for k, (p, d) in enumerate(zip(padding, dilation, strict=True))
    ]
    at = [ix.div(e, s) for e, s in zip(spread, stride, strict=True)]
    conds = [ix.equals(ix.mod(e, s), 0) for e, s in zip(spread, stride, strict=True)]
    conds += [c for e, n in zip(at, x.shape[2:], strict=True) for c in ix.inside(e, n)]
    return contract(
        x,
        w,
        shape,
        (per_group, *kernel),
        (i[0], channel, *at),
        (channel, ix.mod(i[1], w.shape[1]), *r[1:]),
        ix.conjunction(conds),
        family="convolution",
    )


def recognise(c: Contract) -> Parameters | None:
    """The parameters whose convolution `c` is (a: input, b: weight), or None."""
    ranks = {len(c.a.shape), len(c.b.shape), len(c.shape)}
    # A rewriting may have reduced spatial axes away: what is left is a sum, not a convolution.
    if c.family != "convolution" or len(ranks) > 1 or min(ranks) < 3:
        return None
    if len(c.reduced) != len(c.shape) - 1:
        return None
    for candidate in (_forward_parameters(c), _transposed_parameters(c)):
        if candidate is not None and _rebuilt(c, candidate) == c:
            return candidate
    return None


def _rebuilt(c: Contract, p: Parameters) -> Node | None:
    if p.groups < 1 or min((*p.padding, *p.output_padding), default=0) < 0:
        return None
    # Groups share out the weight's outputs, or a transposed one's inputs, evenly.
    if c.b.shape[0] % p.groups or (p.transposed and c.b.shape[0] != c.a.shape[1]):
        return None
    if min((*p.stride, *p.dilation), default=1) < 1:
        return None
    if p.transposed:
        return transposed_convolution(
            c.a, c.b, p.stride, p.padding, p.dilation, p.groups, p.output_padding
        )
    return convolution(c.a, c.b, p.stride, p.padding, p.dilation, p.groups)


def _coefficient(e: Index, v: Index) -> int:
    return ix.coefficient(e, v) or 0


def _forward_parameters(c: Contract) -> Parameters | None:
    axes, r = c.axes, c.reduced_axes
    if c.a.shape[1] % c.b.shape[1]:
        return None
    stride, padding, dilation = [], [], []
    for k, e in enumerate(c.a_index[2:]):
        n, size = c.a.shape[2 + k], c.b.shape[2 + k]
        d = _coefficient(e, r[1 + k]) if size > 1 else 1
        p = -ix.parts(e)[0]
        # An output of extent 1 has no stride of its own: any that leaves no second window will do.
        s = (
            _coefficient(e, axes[2 + k])
            if c.shape[2 + k] > 1
            else max(1, n + 2 * p - d * (size - 1))
        )
        stride.append(s)
        padding.append(p)
        dilation.append(d)
    groups = c.a.shape[1] // c.b.shape[1]
    return Parameters(tuple(stride), tuple(padding), tuple(dilation), groups)


def _transposed_parameters(c: Contract) -> Parameters | None:
    r, stride, padding, dilation, extra = c.reduced_axes, [], [], [], []
    if not c.b.shape[1] or c.shape[1] % c.b.shape[1]:
        return None
    for k, e in enumerate(c.a_index[2:]):
        spread, s = undivided(e)
        size, n = c.b.shape[2 + k], c.a.shape[2 + k]
        d = -_coefficient(spread, r[1 + k]) if size > 1 else 1
        p = ix.parts(spread)[0]
        stride.append(s)
        padding.append(p)
        dilation.append(d)
        extra.append(c.shape[2 + k] - transposed_extent(n, size, s, p, d, 0))
    groups = c.shape[1] // c.b.shape[1]
    return Parameters(tuple(stride), tuple(padding), tuple(dilation), groups, True, tuple(extra))


def undivided(e: Index) -> tuple[Index, int]:
    """(x, s) with `e = x // s`, undoing what simplification took out of the division."""
    constant, terms = ix.parts(e)
    divisions = [a for c, a in terms if isinstance(a, ix.Div) and c == 1]
    if len(divisions) != 1 or not isinstance(divisions[0], ix.Div):
        return e, 1
    step = divisions[0].divisor
    rest = ix.add(ix.const(constant), *(ix.mul(a, c) for c, a in terms if a != divisions[0]))
    return rest * step + divisions[0].x, step
