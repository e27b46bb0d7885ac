"""Convolutions as products of channels-last images: on the Graph and as a kernel's element.

A `ConvShape` is the geometry of one: how an output place and a tap name a place of the images. From
it follow the contraction on the Graph (`conv_product`, found again by `conv_of`) and the element
that a kernel computes (`element`). How a kernel's tiles lie in the images is in `conv_tile`;
whether such a kernel pays is the schedule's business.
"""

from dataclasses import dataclass
from math import prod

from . import body as b
from . import graph as g
from . import index as ix
from . import offsets
from .dtypes import FLOAT32, DType
from .index import Conds, Index, Var

Ints = tuple[int, ...]
# Channels of a place come in multiples of 32 bytes: copies of places that share such a sector of
# memory take twice as long.
CHANNELS = 16


@dataclass(frozen=True, slots=True)
class ConvShape:
    """`images` x `rows` outputs over `channels`; per spatial axis the extents of the images
    (`inner`), of the outputs (`outer`) and of the taps, and stride, padding before, dilation.

    Of a transposed convolution the rows are its channels by the `phases` of its strides: places
    that lie beside each other in its result.
    """

    images: int
    rows: int
    channels: int
    inner: Ints
    outer: Ints
    taps: Ints
    stride: Ints
    before: Ints
    dilation: Ints
    phases: Ints = ()

    @property
    def shape(self) -> Ints:
        """Of the product on the Graph."""
        rows = (self.rows // prod(self.phases), *self.phases) if self.phases else (self.rows,)
        return (self.images, *rows, *self.outer)

    @property
    def result_strides(self) -> Ints:
        """Of the product in memory: phases lie between the places, as in what is made of them."""
        steps = self.phases or (1,) * len(self.outer)
        whole = (*self.shape[:2], *(n * s for n, s in zip(self.outer, steps, strict=True)))
        image, row, *along = offsets.row_major(whole)
        places = (a * s for a, s in zip(along, steps, strict=True))
        return (image, row, *(along if self.phases else ()), *places)

    @property
    def pixels(self) -> int:
        """Outputs per image and row."""
        return prod(self.outer)

    @property
    def depth(self) -> int:
        """Of the sum."""
        return prod(self.taps) * self.channels

    @property
    def x_shape(self) -> Ints:
        return (self.images, *self.inner, self.channels)

    @property
    def w_shape(self) -> Ints:
        return (*self.shape[1 : -len(self.outer)], *self.taps, self.channels)

    def place(self, outer: tuple[Index, ...], taps: tuple[Index, ...]) -> tuple[Index, ...]:
        """Where in the images an output reads at a tap."""
        facts = zip(outer, taps, self.stride, self.before, self.dilation, strict=True)
        return tuple(o * s + t * d - p for o, t, s, p, d in facts)

    def valid(self, place: tuple[Index, ...]) -> Conds:
        """Whether a place lies in the images."""
        sides = zip(place, self.inner, strict=True)
        return ix.conjunction(c for e, n in sides for c in ix.inside(e, n))


def conv_product(x: g.Node, w: g.Node, conv: ConvShape, *, exact: bool = False) -> g.Node:
    """x (images, *inner, channels) with w (rows, *taps, channels), both of one 16-bit type, gives
    (images, rows, *outer) in float32; with phases, rows are (rows of one, *phases).

    `exact`: the operands are terms of float32 values, so that no flag need allow their rounding."""
    shape, spatial = conv.shape, len(conv.outer)
    i, r = ix.axes(shape), g.reduced_axes((*conv.taps, conv.channels))
    place = conv.place(i[-spatial:], r[:-1])
    return g.contract(
        x,
        w,
        shape,
        (*conv.taps, conv.channels),
        (i[0], *place, r[-1]),
        (*i[1:-spatial], *r),
        conv.valid(place),
        family="exact convolution" if exact else "convolution",
        dtype=FLOAT32,
    )


def conv_of(c: g.Contract) -> ConvShape | None:
    """The conv whose product `c` is, or None."""
    spatial = len(c.a.shape) - 2
    if c.dtype != FLOAT32 or c.a.dtype.bits != 16 or spatial < 1 or len(c.reduced) != spatial + 1:
        return None
    i, r = c.axes, c.reduced_axes
    rows, outer, places = c.shape[1:-spatial], c.shape[-spatial:], c.a_index[1:-1]

    def factors(axes: tuple[Index, ...]) -> Ints:
        return tuple(max(_factor(e, v), 1) for e, v in zip(places, axes, strict=True))

    before = tuple(-ix.parts(e)[0] for e in places)
    extents = (c.a.shape[1:-1], outer, c.reduced[:-1])
    steps = (factors(i[-spatial:]), before, factors(r[:-1]))
    found = ConvShape(c.shape[0], prod(rows), c.a.shape[-1], *extents, *steps, rows[1:])
    fits = found.shape == c.shape and found.w_shape == c.b.shape
    exact = c.family == "exact convolution"
    return found if fits and conv_product(c.a, c.b, found, exact=exact) == c else None


def _factor(e: Index, v: Index) -> int:
    return (ix.coefficient(e, v) or 0) if isinstance(v, Var) else 0


def axes_of(conv: ConvShape) -> tuple[Index, Index, Index, Var]:
    """The variables of image, row, output (row-major number) and what is summed over."""
    return b.product_axes(conv.images, conv.rows, conv.pixels, conv.depth)


def result_axes(conv: ConvShape) -> tuple[Index, ...]:
    """The axes of the convolution's result, row by row, at (image, row, output) of the product."""
    batch, m, n, _ = axes_of(conv)
    row, *phase = offsets.unflatten(m, conv.shape[1 : -len(conv.outer)])
    place = offsets.unflatten(n, conv.outer)
    if not phase:
        return (batch, row, *place)
    steps = zip(place, conv.phases, phase, strict=True)
    return (batch, row, *(e * s + p for e, s, p in steps))


def element(conv: ConvShape, x: str, w: str, dtype: DType) -> b.Expr:
    """The product's element over buffers of images and weights."""
    batch, m, n, k = axes_of(conv)
    *taps, channel = offsets.unflatten(k, (*conv.taps, conv.channels))
    place = conv.place(offsets.unflatten(n, conv.outer), tuple(taps))
    strides = offsets.row_major(conv.x_shape)
    image = b.Load(dtype, x, offsets.flatten((batch, *place, channel), strides))
    weight = b.Load(dtype, w, m * conv.depth + k)
    inside = b.guarded(conv.valid(place), image, b.Lit(dtype, 0.0))
    return b.Dot(FLOAT32, k, weight, inside)
