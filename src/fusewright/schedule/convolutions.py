"""Convolutions as products of channels-last images on tensor cores: which, in which form and tile.

On the Graph a float32 convolution becomes a conv product (`ir.conv_product`) of operands rounded to
float16, each image and each row of weights scaled by a power of two of its own first: eleven bits
of every element are kept, as TF32 keeps them, which is what a GPU's library rounds to where torch's
flags allow it. Where they may not be rounded so, and channels are few, a product of three terms is
as accurate as float32's. A transposed convolution is one whose rows are the phases of its stride,
seen through a view. What such a kernel computes for its readers is found by `contraction`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import gcd, prod

from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir.conv_product import CHANNELS, ConvShape, conv_of, conv_product
from fusewright.ir.conv_tile import (
    CHUNKS,
    MOST_RUN,
    ROWS,
    ConvTile,
    alternating,
    box_of,
    burst_factor,
    run_of,
)
from fusewright.ir.convolution import Parameters, recognise
from fusewright.ir.dtypes import FLOAT16, FLOAT32
from fusewright.ir.kernel import Tile
from fusewright.ir.native import up
from fusewright.options import Options
from fusewright.target.arch import Arch
from fusewright.target.cost import is_pointwise, node_flops
from fusewright.target.products import ConvProducts

from .layout import Users

# A scaled image's largest magnitude is at most 2 to this: 2 ** 15 is the last one in float16.
EXPONENT = 15.0
# Magnitudes between which a scale and its inverse are normal numbers.
LEAST, MOST = 2.0**-100, 3.0e38
# Bytes of an image up to which one block scales and rounds it while it is in the cache.
LARGEST_IMAGE = 64 << 10
# Channels up to which the taps along the width count as channels, too: fewer of them are padding.
FEW_CHANNELS = 8
# Terms of a product as accurate as float32's.
TERMS = 3
# Columns of a tile; taps that share a copy, at most.
COLUMNS, MOST_SHARED = (128, 256), 4

Change = Callable[[g.Node], g.Node]


def as_product(node: g.Node, arch: Arch, options: Options, fold: Change) -> g.Node | None:
    """The convolution as a conv product where that pays, else None; `fold` says how a reduction
    is computed."""
    if not isinstance(node, g.Contract) or (choice := _choice(node, arch, options)) is None:
        return None
    if not choice.pays:
        return None
    return choice.form.read(_scaled_product(node, choice.form, fold))


def refusal(node: g.Contract, arch: Arch, options: Options) -> str | None:
    """Why the library keeps a convolution; None of anything else."""
    choice = _choice(node, arch, options)
    if choice is None:
        return None
    return (
        f"the library's convolution takes about {choice.library * 1e6:.0f} us, "
        f"ours, its operands laid out before, {choice.ours * 1e6:.0f} us"
    )


@dataclass(frozen=True, slots=True)
class _Choice:
    """A convolution's form, and the modelled seconds of it and of the library's."""

    form: "_Form"
    ours: float
    library: float

    @property
    def pays(self) -> bool:
        return self.ours < self.library


def _choice(node: g.Contract, arch: Arch, options: Options) -> _Choice | None:
    if node.dtype != FLOAT32 or arch.convs is None:
        return None
    p = recognise(node)
    if p is None or p.groups > 1 or not node.size:
        return None
    form = _form(node, p, exact=options.precision == "ieee")
    if form is None:
        return None
    ours = product_seconds(form.conv, node, arch)
    return _Choice(form, ours, library_seconds(node, p, arch))


@dataclass(frozen=True, slots=True)
class _Form:
    """A convolution as the product of `conv` over views of its operands, and what it is of that;
    `rows_first`: the weight's first axis is the product's rows; `together`: channels of each of its
    terms, if it is a sum of three."""

    conv: ConvShape
    x: g.Node
    w: g.Node
    rows_first: bool
    read: Change
    together: int = 0


# ------------------------------------------------------------------------------------------- forms


def _form(c: g.Contract, p: Parameters, exact: bool) -> _Form | None:
    """The form of a convolution; an exact one where channels are few: its sums are short."""
    few = c.a.shape[1] <= FEW_CHANNELS and not p.transposed
    if exact:
        return _unfolded(c, p, TERMS) if few else None
    if p.transposed:
        return _transposed(c, p)
    return _unfolded(c, p, 1) if few else _direct(c, p)


def _direct(c: g.Contract, p: Parameters) -> _Form:
    images, channels, *inner = c.a.shape
    rows, _, *taps = c.b.shape
    depth = up(channels, CHANNELS)
    conv = ConvShape(
        images, rows, depth, tuple(inner), c.shape[2:], tuple(taps), p.stride, p.padding, p.dilation
    )
    x = _padded(c.a, conv.x_shape, (0, *range(2, len(c.a.shape)), 1))
    w = _padded(c.b, conv.w_shape, (0, *range(2, len(c.b.shape)), 1))
    return _Form(conv, x, w, True, lambda whole: whole)


def _unfolded(c: g.Contract, p: Parameters, terms: int) -> _Form:
    """With few channels: those of all taps along the width lie beside each other, once for each
    of the product's terms (`_terms`)."""
    images, channels, *inner = c.a.shape
    rows, _, *taps = c.b.shape
    width = c.shape[-1]
    s, d, before = p.stride[-1], p.dilation[-1], p.padding[-1]
    together = channels * taps[-1]
    conv = ConvShape(
        images,
        rows,
        up(terms * together, CHANNELS),
        (*inner[:-1], width),
        c.shape[2:],
        (*taps[:-1], 1),
        (*p.stride[:-1], 1),
        (*p.padding[:-1], 0),
        (*p.dilation[:-1], 1),
    )
    image, *place, along, channel = ix.axes(conv.x_shape)
    one = ix.mod(channel, together)
    tap, channel_in = ix.div(one, channels), ix.mod(one, channels)
    at = along * s + tap * d - before
    inside = ix.conjunction((ix.less(channel, terms * together), *ix.inside(at, inner[-1])))
    x = g.view(c.a, conv.x_shape, (image, channel_in, *place, at), inside, 0.0)
    row, *other, _, channel = ix.axes(conv.w_shape)
    one = ix.mod(channel, together)
    tap, channel_in = ix.div(one, channels), ix.mod(one, channels)
    valid = ix.conjunction((ix.less(channel, terms * together),))
    w = g.view(c.b, conv.w_shape, (row, channel_in, *other, tap), valid, 0.0)
    return _Form(conv, x, w, True, lambda whole: whole, together if terms > 1 else 0)


def _padded(x: g.Node, shape: g.Shape, order: tuple[int, ...]) -> g.Node:
    """`x` permuted to `order`, its last axis filled up with zeros to `shape`."""
    axes = ix.axes(shape)
    at = dict(zip(order, axes, strict=True))
    valid = ix.conjunction((ix.less(axes[-1], x.shape[order[-1]]),))
    return g.view(x, shape, tuple(at[k] for k in range(len(shape))), valid, 0.0)


@dataclass(frozen=True, slots=True)
class _Phases:
    """A transposed convolution along one axis: output `stride * q + phase` is a sum over `taps`
    places `q + first + t * step`, of those with a weight."""

    stride: int
    first: int
    step: int
    taps: int
    padding: int
    dilation: int

    def weight(self, phase: ix.Index, tap: ix.Index) -> tuple[ix.Index, int]:
        """What divided by the dilation is the position of the weight."""
        start = self.padding - self.stride * self.first
        return phase + start - tap * (self.stride * self.step), self.dilation


def _phases(s: int, d: int, taps: int, padding: int, extent: int) -> _Phases:
    reached = [
        (phase + padding - d * r) // s
        for phase, r in product(range(min(s, extent)), range(taps))
        if (phase + padding - d * r) % s == 0
    ]
    first = min(reached, default=0)
    step = gcd(*(x - first for x in reached)) or 1
    return _Phases(s, first, step, (max(reached, default=0) - first) // step + 1, padding, d)


def _transposed(c: g.Contract, p: Parameters) -> _Form:
    images, channels, *inner = c.a.shape
    _, rows, *taps = c.b.shape
    facts = zip(p.stride, p.dilation, taps, p.padding, c.shape[2:], strict=True)
    along = [_phases(*fact) for fact in facts]
    strides = tuple(x.stride for x in along)
    conv = ConvShape(
        images,
        prod(strides) * rows,
        up(channels, CHANNELS),
        tuple(inner),
        tuple(-(-n // s) for n, s in zip(c.shape[2:], strides, strict=True)),
        tuple(x.taps for x in along),
        (1,) * len(along),
        tuple(-x.first for x in along),
        tuple(x.step for x in along),
        strides if prod(strides) > 1 else (),
    )
    x = _padded(c.a, conv.x_shape, (0, *range(2, len(c.a.shape)), 1))
    out, *at = ix.axes(conv.w_shape)
    *phase, channel = at if conv.phases else (*(ix.const(0) for _ in along), *at)
    phase, tap = phase[: len(along)], phase[len(along) :]
    places = [a.weight(*at) for a, *at in zip(along, phase, tap, strict=True)]
    conds = [ix.equals(ix.mod(e, d), 0) for e, d in places]
    index = [ix.div(e, d) for e, d in places]
    conds += [cond for e, n in zip(index, taps, strict=True) for cond in ix.inside(e, n)]
    conds.append(ix.less(channel, channels))
    w = g.view(c.b, conv.w_shape, (channel, out, *index), ix.conjunction(conds), 0.0)
    image, out, *at = c.axes
    digits = [ix.mod(e, s) for e, s in zip(at, conv.phases, strict=False)]
    place = [ix.div(e, s) for e, s in zip(at, strides, strict=True)]
    return _Form(conv, x, w, False, lambda t: g.view(t, c.shape, (image, out, *digits, *place)))


def _scaled_product(c: g.Contract, form: _Form, fold: Change) -> g.Node:
    """The conv product of both operands in float16, each image and row of weights scaled."""
    x, x_inverse = _scaled(form.x, c.a, fold)
    w, w_inverse = _scaled(form.w, c.b if form.rows_first else form.w, fold)
    if form.together:
        x, w = (_terms(v, k, form.together) for k, v in enumerate((x, w), start=1))
    x, w = g.cast(x, FLOAT16), g.cast(w, FLOAT16)
    whole = conv_product(x, w, form.conv, exact=form.together > 0)
    rank = len(whole.shape)
    undone = g.binary("mul", whole, g.insert_expanded(x_inverse, range(1, rank), whole.shape))
    rest = (0, *range(2, rank))
    return g.binary("mul", undone, g.insert_expanded(w_inverse, rest, whole.shape))


def _terms(x: g.Node, low: int, together: int) -> g.Node:
    """Of the three terms along the last axis one, `low`, as what rounding to float16 leaves of it.

    (a + b)(c + d) = ac + bc + ad + bd for x = a + b, w = c + d of float16; bd is below float32's
    rounding.
    """
    part = g.iota(ix.div(ix.axes(x.shape)[-1], together), x.shape)

    def is_part(number: int) -> g.Node:
        return g.binary("eq", part, g.const(number, part.dtype, x.shape))

    rounded = g.cast(g.cast(x, FLOAT16), FLOAT32)
    other = g.where(is_part(low), g.binary("sub", x, rounded), x)
    # An infinity is one in the first term alone: in others it could meet one of the other sign.
    finite = g.binary("le", g.unary("abs", rounded), g.const(MOST, FLOAT32, x.shape))
    other = g.where(finite, other, g.const(0.0, FLOAT32, x.shape))
    return g.where(is_part(0), x, other)


def _scaled(x: g.Node, values: g.Node, fold: Change) -> tuple[g.Node, g.Node]:
    """`x` with its slices along the first axis scaled to one magnitude, and what undoes it; a slice
    with a value that is not finite stays as it is. `values` are all there are in `x`.

    The scales are powers of two, so float16 keeps the bits of an element that TF32 keeps.
    """
    top: g.Node = g.unary("abs", values)
    if values.nbytes > LARGEST_IMAGE * values.shape[0]:
        top = fold(g.reduce("max", top, range(2, len(values.shape))))
    top = fold(g.reduce("max", top, range(1, len(top.shape))))

    def number(value: float) -> g.Node:
        return g.const(value, FLOAT32, top.shape)

    size = g.unary("log2", g.binary("maximum", top, number(LEAST)))
    exponent = g.unary("floor", g.binary("sub", number(EXPONENT), size))
    exponent = g.where(g.binary("le", top, number(MOST)), exponent, number(0.0))
    scale, inverse = g.unary("exp2", exponent), g.unary("exp2", g.unary("neg", exponent))
    spread = g.insert_expanded(scale, range(1, len(x.shape)), x.shape)
    return g.binary("mul", x, spread), inverse


def scales(graph: g.Graph, users: Users) -> tuple[g.Node, ...]:
    """The numbers that scale operands of conv products, and those that undo it: in memory each is
    computed once, else for every element."""
    found: dict[g.Node, None] = {}
    for node in graph.nodes():
        if isinstance(node, g.Contract) and conv_of(node) is not None:
            (first,) = users[node]
            found |= dict.fromkeys(_factors_in((first, *users[first], *node.operands)))
    return tuple(found)


def _factors_in(roots: Sequence[g.Node]) -> Iterator[g.Node]:
    """The powers of two that pointwise work takes to all its elements."""
    stack, seen = list(roots), set()
    while stack:
        n = stack.pop()
        if n in seen:
            continue
        seen.add(n)
        if isinstance(n, g.View):
            base = _unviewed(n)
            if isinstance(base, g.Unary) and base.op == "exp2":
                yield base
        elif is_pointwise(n):
            stack.extend(n.operands)


def _unviewed(x: g.Node) -> g.Node:
    while isinstance(x, g.View):
        x = x.x
    return x


# ------------------------------------------------------------------------------------------- times


def best_tile(w: ConvShape, arch: Arch, operations: int = 0) -> tuple[float, Tile]:
    """The modelled seconds of the product with so many float operations behind each element, and
    its tile as a kernel's record."""
    tiles = _candidates(w)
    timed = [(_product_seconds(w, x, operations, arch), k) for k, x in enumerate(tiles)]
    seconds, best = min(timed)
    return seconds, tiles[best].record


def _candidates(w: ConvShape) -> list[ConvTile]:
    shared = [s for s in range(1, w.taps[-1] + 1) if w.taps[-1] % s == 0 or s == MOST_SHARED]
    sizes = product((1, 2) if w.rows > ROWS else (1,), COLUMNS, shared)
    tiles = (
        ConvTile(blocks, columns, chunk, box, own)
        for blocks, columns, s in sizes
        if (box := box_of(w, columns, s)) is not None
        for chunk, own in product(CHUNKS, (False, True))
    )
    return [x for x in tiles if x.stages > 1]


def _product_seconds(w: ConvShape, x: ConvTile, operations: int, arch: Arch) -> float:
    """Waves of tiles, or all stores."""
    assert arch.convs is not None
    waves = -(-w.images * x.count(w) // arch.units)
    stores = 4.0 * w.images * w.rows * w.pixels / arch.copy_rate
    return max(waves * _tile_seconds(w, x, operations, arch.convs), stores)


def _tile_seconds(w: ConvShape, x: ConvTile, operations: int, rates: ConvProducts) -> float:
    """A tile's products or copies, whichever take longer, beside or before its epilogue."""
    chunks = prod(w.taps[:-1]) * -(-w.channels * 2 // x.chunk)
    steps = chunks * w.taps[-1] * x.chunk / 128
    multiply = steps * rates.step * x.blocks / 2 * x.columns / COLUMNS[-1]
    spread = 1 if w.stride[-1] == 1 else rates.strided * w.stride[-1]
    pixels = -(-w.taps[-1] // x.box.shared) * x.box.pitch * x.box.lines * spread
    weights = w.taps[-1] * x.blocks * ROWS
    issued = (pixels + weights / x.cluster(w)) * rates.row
    copies = chunks * max(issued, (pixels + weights) * x.chunk / rates.copied)
    summed = max(multiply, copies) * (1.0 if x.stages > 2 else rates.shallow)
    elements = min(x.blocks * ROWS, w.rows) * x.columns * burst_factor(w, x.box)
    run = min(run_of(w, x.box) * alternating(w), MOST_RUN)
    own, handed = (
        elements * (r.element + r.run / run + r.operation * operations)
        for r in (rates.own, rates.handed)
    )
    taken = summed + own if x.own else max(summed, handed)
    return rates.tile + taken + rates.beside * (multiply + copies)


def product_seconds(w: ConvShape, c: g.Contract, arch: Arch) -> float:
    """The product behind the scaling and rounding of its operands."""
    assert arch.convs is not None
    rounded = 2 * prod(w.x_shape)
    before = (2 * c.a.nbytes + rounded) / arch.copy_rate
    return arch.convs.launches + before + best_tile(w, arch)[0]


def library_seconds(c: g.Contract, p: Parameters, arch: Arch) -> float:
    """The library's convolution: its arithmetic, and the copies to the layout it computes in."""
    assert arch.convs is not None
    rates, spatial = arch.convs, len(c.shape) - 2
    if prod(c.b.shape[2:]) == 1 and set(p.stride) == {1}:  # a matrix product of what lies there
        moved = (c.a.nbytes + c.nbytes) / arch.copy_rate
        return max(node_flops(c) / rates.library_flops, moved) + rates.library_launch
    if spatial == 1:  # to another layout and back
        moved = 2 * c.a.nbytes + rates.library_line * c.nbytes
    else:
        moved = 2 * c.a.nbytes + rates.library_result * (c.a.nbytes + c.nbytes)
    work, flops = _library_work(c, p, rates)
    return work / flops + moved / arch.copy_rate + rates.library_launch


def _library_work(c: g.Contract, p: Parameters, rates: ConvProducts) -> tuple[float, float]:
    """Float operations that the library's convolution makes, and its rate."""
    solid, few = len(c.shape) > 4, c.a.shape[1] <= FEW_CHANNELS
    filled = min(c.shape[1] / (rates.library_few_rows if few else rates.library_rows), 1.0)
    steps, work = prod(p.stride), float(node_flops(c))
    if p.transposed and steps > 1:  # places between the steps are zeros that it multiplies, too
        if few or max(p.dilation) > 1:
            return work * steps, rates.library_slow_flops
        return 2 * work, rates.library_flops * filled
    if p.transposed and solid:
        return work, rates.library_slow_flops
    if few:
        return work, rates.library_few_flops * filled
    return work, rates.library_flops * filled * (rates.library_solid if solid else 1.0)
