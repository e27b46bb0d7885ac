"""Windows that slide over rows of memory: the affine structure of a pooling nest, with its proof.

A fold slides along a row variable `o` when its bodies know `o` and a column variable `k` only as
the place `stride * o + dilation * k`: neighbouring rows then fold the same values, and a value can
be loaded, computed and partly folded once for all of them. What a kernel makes of it is `Layout`.
No C text lives here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import gcd, prod

from . import index as ix
from .body import Convert, Coord, Expr, Guarded, Lit, Load, substitute, walk
from .index import Index, Var
from .kernel import Fold, Phase, Tile
from .scalar import identity

# Strides and dilations up to which a window is taken to slide.
LARGEST_STRIDE = 8
# Neighbouring places of a row that one thread takes, if a vector access is not wider.
COLUMNS = 4


@dataclass(frozen=True, slots=True)
class Slide:
    """Windows along one axis: places are `stride * row + dilation * col`, the factors coprime."""

    row: Var
    col: Var
    stride: int
    dilation: int

    @property
    def reach(self) -> int:
        """Places from a window's first to its last."""
        return self.dilation * (self.col.extent - 1)

    @property
    def places(self) -> int:
        return self.stride * (self.row.extent - 1) + self.reach + 1


@dataclass(frozen=True, slots=True)
class Windows:
    """A fold over windows along the innermost row, and along the one before it where `down`.

    `folds` have bodies over the other rows, the `taps` (the columns that no slide takes), the place
    `over` along `down`, and `at`: `at + first` is the place along `across`. Places outside of
    `first .. first + at.extent` add nothing to any fold.
    """

    across: Slide
    down: Slide | None
    taps: tuple[Var, ...]
    folds: tuple[Fold, ...]
    at: Var
    first: int
    over: Var | None

    @property
    def loads(self) -> tuple[Load, ...]:
        return tuple(e for e in walk(*(f.body for f in self.folds)) if isinstance(e, Load))


def sliding(rows: tuple[Var, ...], phases: tuple[Phase, ...]) -> Windows | None:
    """The windows of a nest: its first phase only folds them, the others take their results."""
    first, rest = phases[0], phases[1:]
    plain = rows and first.folds and not (first.keeps or first.scans or first.stores)
    if not plain or any(p.cols or p.scans for p in rest):
        return None
    gathers = any(isinstance(e, Load) and e.indirect for e in walk(*first.bodies))
    if gathers or any(f.position is not None for f in first.folds):
        return None
    across = _slide(rows[-1], first.cols, first.bodies)
    if across is None:
        return None
    place = Var(f"{rows[-1].name}_at", across.places)
    folds, taps = _placed(first.folds, across, place), without(first.cols, across)
    bodies = tuple(f.body for f in folds)
    down = next((_slide(v, taps, bodies) for v in rows[-2:-1]), None)
    over = None
    if down is not None:
        over = Var(f"{down.row.name}_at", down.places)
        folds, taps = _placed(folds, down, over), without(taps, down)
    lo, hi = _support(folds, place)
    if hi - lo < 2:
        return None
    at = Var(place.name, hi - lo)
    folds = _substituted(folds, {place: at + lo})
    return Windows(across, down, taps, folds, at, lo, over)


def without(cols: tuple[Var, ...], slide: Slide) -> tuple[Var, ...]:
    return tuple(c for c in cols if c != slide.col)


def expressions(bodies: Sequence[Expr]) -> list[Index]:
    """Every index expression of the bodies: offsets, coordinates and conditions."""
    out: list[Index] = []
    for e in walk(*bodies):
        match e:
            case Load():
                out.append(e.offset)
            case Coord():
                out.append(e.index)
            case Guarded():
                out.extend(c.x for c in e.conds)
    return out


def _slide(row: Var, cols: tuple[Var, ...], bodies: tuple[Expr, ...]) -> Slide | None:
    """The slide of the innermost column with which the bodies know `row` as a place only."""
    known = expressions(bodies)
    slides = (slide_of(row, col, known) for col in reversed(cols))
    return next((s for s in slides if s is not None and is_slide(s, known)), None)


def slide_of(row: Var, col: Var, known: Sequence[Index]) -> Slide | None:
    """The places that the first expression with both variables is of; others are not looked at."""
    pairs = ((ix.coefficient(x, row), ix.coefficient(x, col)) for x in known)
    found = next(((a, b) for a, b in pairs if a and b), None)
    if found is None or min(found) <= 0:
        return None
    common = gcd(*found)
    slide = Slide(row, col, found[0] // common, found[1] // common)
    return slide if max(slide.stride, slide.dilation) <= LARGEST_STRIDE else None


def is_slide(slide: Slide, known: Sequence[Index]) -> bool:
    """Whether going `dilation` rows on and `stride` columns back changes no expression."""
    step = Var("slide_step", 2)
    moved: dict[Index, Index] = {
        slide.row: slide.row + slide.dilation * step,
        slide.col: slide.col - slide.stride * step,
    }
    return not any(step in ix.variables(ix.substitute(x, moved)) for x in known)


def at_place(slide: Slide, place: Var) -> dict[Index, Index]:
    """Row and column as the multiples of a place that make it (Bezout)."""
    row = pow(slide.stride, -1, slide.dilation) if slide.dilation > 1 else 0
    col = (1 - slide.stride * row) // slide.dilation
    return {slide.row: place * row, slide.col: place * col}


def _placed(folds: tuple[Fold, ...], slide: Slide, place: Var) -> tuple[Fold, ...]:
    return _substituted(folds, at_place(slide, place))


def _substituted(folds: tuple[Fold, ...], mapping: dict[Index, Index]) -> tuple[Fold, ...]:
    return tuple(replace(f, body=substitute(f.body, mapping)) for f in folds)


def _support(folds: tuple[Fold, ...], place: Var) -> tuple[int, int]:
    """The first place and the one past the last that add anything to a fold."""
    ranges = [_range(f, place) for f in folds]
    return min(lo for lo, _ in ranges), max(hi for _, hi in ranges)


def _range(fold: Fold, place: Var) -> tuple[int, int]:
    lo, hi, body = 0, place.extent, fold.body
    while isinstance(body, Convert) and body.dtype.is_float and body.x.dtype.is_float:
        body = body.x
    if not isinstance(body, Guarded) or not isinstance(body.otherwise, Lit):
        return lo, hi
    if body.otherwise.value != identity(fold.kind, body.dtype):
        return lo, hi
    for c in body.conds:
        constant, terms = ix.parts(c.x)
        if c.kind == "ge" and len(terms) == 1 and terms[0][1] == place:
            factor = terms[0][0]
            lo = max(lo, -(constant // factor)) if factor > 0 else lo
            hi = min(hi, constant // -factor + 1) if factor < 0 else hi
    return lo, hi


# -------------------------------------------------------------------------------------- the layout


@dataclass(frozen=True, slots=True)
class Layout:
    """How a block of threads takes windows, from a tile.

    `lanes` threads share a row of memory, `groups` of them take outer rows; a thread has `chunks`
    vectors of `width` places and folds them down `depth` rows of places into `rows` rows of partial
    results in shared memory, `length` of them each, from which windows are folded across.
    """

    windows: Windows
    tile: Tile

    @property
    def lanes(self) -> int:
        return self.tile.lanes

    @property
    def groups(self) -> int:
        return self.tile.threads // self.tile.lanes

    @property
    def rows(self) -> int:
        """Rows of windows of a step."""
        return 1 if self.windows.down is None else self.tile.items

    @property
    def width(self) -> int:
        """Places of one access: the tile's, where every row of places has whole ones."""
        width = 1
        while width * 2 <= self.tile.vector and self.windows.at.extent % (width * 2) == 0:
            width *= 2
        return width

    @property
    def chunks(self) -> int:
        """Vectors of a row that a thread takes."""
        more = self.tile.items if self.windows.down is None else 1
        return more * max(1, COLUMNS // self.width)

    @property
    def columns(self) -> int:
        return self.lanes * self.width * self.chunks

    @property
    def columns_each(self) -> int:
        return self.width * self.chunks

    @property
    def edge(self) -> int:
        """Partial results of a row in front of the first place that adds anything."""
        return -(-self.windows.first // self.width) * self.width

    @property
    def start(self) -> int:
        """Where the first window of a row begins among the partial results."""
        return self.edge - self.windows.first

    @property
    def whole(self) -> bool:
        """Whether a block has all places of a row; else the row is cut in `tiles`."""
        return self.columns >= self.windows.at.extent

    @property
    def length(self) -> int:
        """Partial results of a row in shared memory."""
        if not self.whole:
            return self.columns
        return -(-(self.windows.across.places + self.start) // self.width) * self.width

    @property
    def outputs(self) -> int:
        """Windows of a row that a block folds."""
        s = self.windows.across
        if self.whole:
            return s.row.extent
        fitting = (self.columns - 1 - self.start - s.reach) // s.stride + 1
        return fitting // self.width * self.width

    @property
    def tiles(self) -> int:
        return -(-self.windows.across.row.extent // self.outputs)

    @property
    def depth(self) -> int:
        """Rows of places that one step's rows of windows reach over."""
        s = self.windows.down
        return 1 if s is None else s.stride * (self.rows - 1) + s.reach + 1

    @property
    def fresh(self) -> int:
        """Rows of places that a step loads; it has the others from the step before."""
        s = self.windows.down
        return 1 if s is None else min(s.stride * self.rows, self.depth)

    @property
    def carried(self) -> int:
        """Rows of places that a step has from the one before."""
        return self.depth - self.fresh

    @property
    def steps(self) -> int:
        return self.tile.stages

    @property
    def block_rows(self) -> int:
        """Rows of windows of a block."""
        return self.rows * self.steps

    @property
    def heights(self) -> int:
        """Blocks along `down`."""
        s = self.windows.down
        return 1 if s is None else -(-s.row.extent // self.block_rows)

    @property
    def taps(self) -> int:
        return prod(v.extent for v in self.windows.taps)

    @property
    def beyond(self) -> int:
        """Partial results of a whole row at places that add nothing to any fold."""
        return self.length - self.windows.at.extent

    @property
    def shared_shape(self) -> tuple[int, int, int, int]:
        """Buffers (one is written while the other is read), groups, rows, partial results."""
        return (2 if self.steps > 1 else 1, self.groups, self.rows, self.length)

    @property
    def shared_bytes(self) -> int:
        return prod(self.shared_shape) * sum(max(4, f.dtype.bytes) for f in self.windows.folds)

    @property
    def registers(self) -> int:
        """32-bit values of a thread: the rows of places, and what is loaded for the next step."""
        kept = self.depth * sum(-(-f.dtype.bytes // 4) for f in self.windows.folds)
        raw = sum(e.dtype.bytes for e in self.windows.loads) * self.fresh * self.taps
        return (kept + -(-raw // 4)) * self.columns_each
