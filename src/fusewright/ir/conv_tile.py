"""Tiles of convolutions on Hopper's tensor cores: what schedule and emission agree on.

How a tile's columns are outputs of a `ConvShape`, and what the skeleton needs beside them. The
device code is emit/skeletons/conv_sm90*.cuh, whose constants are repeated here. Which tile is best
is the schedule's business.
"""

from dataclasses import dataclass

from .conv_product import ConvShape, Ints
from .kernel import Kernel, Tile
from .native import FOLD_ROWS, up
from .onepass import partials_of

# Rows of weights that share a step of the tensor core.
ROWS = 64
# Bytes of channels that one copy takes, its most lines along an axis, and columns handed over at
# once.
CHUNKS, MOST_BOX, SLAB = (128, 64, 32), 256, 128
# Columns that the epilogue takes at once, at most; lines that can be a product of their own.
MOST_RUN, LINES = 4, (128, 64)
# Outputs that make stores beside each other half as fast.
BURST = 8
# So many more parts of a line than the fewest are tried.
MOST_PARTS = 32
THREADS, SHARED = 384, 227 << 10


@dataclass(frozen=True, slots=True)
class Box:
    """Outputs of a tile: `depth` x `height` lines of `width`; its copies have lines of `pitch`.

    `shared` taps along the width read one copy, the later ones further on in it; a line then is as
    much longer than its outputs. Where lines are as wide as a product may be and fill the tile,
    each is a product of its own (`by_line`); else one product takes the copy as it lies.
    """

    width: int
    height: int
    depth: int
    pitch: int
    shared: int
    by_line: bool = False

    @property
    def lines(self) -> int:
        return self.height * self.depth


@dataclass(frozen=True, slots=True)
class ConvTile:
    """A tile of the skeleton: `blocks` of 64 rows, `columns`, bytes of a `chunk` of channels, and
    the outputs that the columns are. `own`: every warp that multiplies applies the epilogue itself,
    instead of warps for that beside the next tile's products."""

    blocks: int
    columns: int
    chunk: int
    box: Box
    own: bool

    def cluster(self, w: ConvShape) -> int:
        """Tiles that share a copy of the weights, each half of it; with two blocks a tile's
        products hide theirs."""
        return 2 if self.blocks == 1 and w.rows > ROWS // 2 else 1

    @property
    def slab(self) -> int:
        """Columns of a warpgroup's that are handed over at once."""
        return min(self.columns if self.blocks > 1 else self.columns // 2, SLAB)

    @property
    def stages(self) -> int:
        """Copies in flight: `kStages` of the skeleton, for float32 results."""
        pixels = up(self.box.pitch * self.box.lines * self.chunk, 1024)
        weights = self.box.shared * ROWS * self.blocks * self.chunk
        free = SHARED - 256 - 2 * 64 * self.slab * 4
        return min(free // (pixels + weights), 8)

    @property
    def record(self) -> Tile:
        """As a kernel has it."""
        return Tile(THREADS, self.chunk // 2, self.blocks, self.columns, self.box.shared, self.own)

    def count(self, w: ConvShape) -> int:
        """Tiles of an image, of all rows."""
        return _tile_count(w, self.box) * -(-w.rows // (ROWS * self.blocks))


def kernel_tile(kernel: Kernel) -> ConvTile:
    """The tile of a kernel, from its record: `vector` channels of a copy, `items` blocks, `lanes`
    columns, `stages` taps that share a copy, `own`."""
    assert kernel.conv is not None
    w, t = kernel.conv, kernel.tile
    box = box_of(w, t.lanes, t.stages)
    assert box is not None
    return ConvTile(t.items, t.lanes, 2 * t.vector, box, t.own)


def spatial(xs: Ints, fill: int = 1) -> Ints:
    """Of one to three axes all three: depth, height, width."""
    return (*((fill,) * (3 - len(xs))), *xs)


def run_of(w: ConvShape, box: Box) -> int:
    """Columns that the epilogue takes at once: a power of two that divides lines and steps."""
    step = 0 if box.by_line else box.pitch
    both = w.outer[-1] | box.width | step
    return min(MOST_RUN, both & -both)


def alternating(w: ConvShape) -> int:
    """Neighbouring rows that what follows can take as one: phases of the stride along the width,
    which lie beside each other in a result."""
    phases = w.phases[-1] if w.phases else 1
    return phases if phases in (2, 4) else 1


def conv_workspace(kernel: Kernel) -> int:
    """Bytes the skeleton needs for partial results of folds; at least 1."""
    w, tile = kernel.conv, kernel_tile(kernel)
    assert w is not None
    words = sum(x.words for x in partials_of(kernel.phases) or ())
    over_n = "n" in {v.name for v in kernel.phases[0].cols}
    slabs = tile.columns // min(tile.slab, 32 * run_of(w, tile.box))
    per_row = _tile_count(w, tile.box) * slabs * w.rows
    per_pixel = -(-w.rows // FOLD_ROWS) * w.pixels
    return max(1, w.images * words * 4 * (per_row if over_n else per_pixel))


def box_of(w: ConvShape, columns: int, shared: int) -> Box | None:
    """The box of the fewest tiles, of short lines counted as more, in which `shared` taps read one
    copy; None if there is none."""
    width, step = w.outer[-1], w.stride[-1]
    if shared > 1 and step > 1:
        return None
    unit, halo = min(MOST_RUN, width & -width), (shared - 1) * w.dilation[-1]
    fewest = -(-width // max(min(MOST_BOX // step, columns) - halo, 1))
    counts = range(fewest, min(width // unit, fewest + MOST_PARTS) + 1)
    parts = (up(-(-width // count), unit) for count in counts)
    boxes = [x for part in parts if (x := _box(w, columns, part, up(part + halo, unit), shared))]
    if halo:
        lines = (x for x in LINES if columns % x == 0 and x < 2 * width)
        boxes += [x for n in lines if (x := _lines(w, columns // n, n, n + halo, shared))]
    return min(boxes, key=lambda x: _tile_count(w, x) * burst_factor(w, x), default=None)


def burst_factor(w: ConvShape, box: Box) -> float:
    """How much longer stores take whose lines are shorter than a burst of memory."""
    whole = box.width == w.outer[-1]
    return 1 + BURST / (box.width * (box.height if whole else 1))


def _box(w: ConvShape, columns: int, width: int, pitch: int, shared: int) -> Box | None:
    """The box whose lines of `pitch` are columns of the tile."""
    if pitch * w.stride[-1] > MOST_BOX or pitch > columns:
        return None
    depth, height, _ = spatial(w.outer)
    down, up_, _ = spatial(w.stride)
    high = _even(height, min(columns // pitch, MOST_BOX // up_))
    deep = _even(depth, min(columns // pitch // high, MOST_BOX // down))
    return Box(width, high, deep, pitch, shared)


def _lines(w: ConvShape, lines: int, width: int, pitch: int, shared: int) -> Box | None:
    """The box of so many lines, each a product of its own, that wastes least."""
    if pitch > MOST_BOX:
        return None
    down, up_, _ = spatial(w.stride)
    shapes = [(lines // h, h) for h in range(1, lines + 1) if lines % h == 0]
    boxes = [
        Box(width, h, d, pitch, shared, True)
        for d, h in shapes
        if h * up_ <= MOST_BOX and d * down <= MOST_BOX
    ]
    return min(boxes, key=lambda x: _tile_count(w, x), default=None)


def _even(extent: int, most: int) -> int:
    """The least part of `extent` that as few parts as of `most` cover."""
    return -(-extent // -(-extent // max(most, 1)))


def _tile_count(w: ConvShape, box: Box) -> int:
    """Tiles of an image and of one block of rows."""
    depth, height, width = spatial(w.outer)
    return -(-width // box.width) * -(-height // box.height) * -(-depth // box.depth)
