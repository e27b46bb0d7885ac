"""What a product computes for the kernels that read it, so that they need not run.

A reader over the product's elements becomes stores at each element; one over its rows (or columns)
becomes folds, which the product gathers tile by tile, and stores when a row is complete. What needs
both the folds and the elements (softmax, a norm) stays behind as a pass over the stored product.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from math import prod

from fusewright.ir import body as b
from fusewright.ir import index as ix
from fusewright.ir import offsets
from fusewright.ir.index import Conds, Index, Var
from fusewright.ir.kernel import Buffer, Kernel, Phase, Store
from fusewright.ir.onepass import partials_of
from fusewright.ir.phases import mapped, substituted, without_keeps
from fusewright.target.arch import Arch

from .nests import shaped_kernel

# Words per row that fold_kernel of emit/skeletons/gemm_sm90_prepare.cuh has shared memory for.
MOST_WORDS = 12


@dataclass(frozen=True, slots=True)
class Element:
    """A product's element: its value, where it would be stored, and its axes; `result` are the axes
    that what reads it goes by, row by row, if they are others. The last of those may reach beyond
    the result, by less than the `steps` they advance in."""

    value: b.Expr
    buffer: str
    batch: Index
    m: Index
    n: Index
    result: tuple[Index, ...] = ()
    steps: tuple[int, ...] = ()

    @property
    def offset(self) -> Index:
        return number(self.result or (self.batch, self.m, self.n))

    def kept(self, over: str) -> tuple[Index, ...]:
        """The axes that a fold over `over` ("m", "n"; "": none) keeps."""
        out = {"n": (self.batch, self.m), "m": (self.batch, self.n)}
        return out.get(over, (self.batch, self.m, self.n))

    def visited(self, over: str) -> tuple[Index, ...]:
        """The same as those who read the product know them."""
        return self.result if self.result and not over else self.kept(over)

    def views(self, over: str, points: int) -> Iterator["_View"]:
        """How so many points that readers visit may be the `visited` ones."""
        axes = self.visited(over)
        if points == number(axes).hi + 1:
            yield _View(axes, {}, ())
        elif axes == self.result and self.steps:
            first = len(axes) - len(self.steps)
            extents = [a.hi + 1 for a in axes]
            fewer = (range(n, n - s, -1) for n, s in zip(extents[first:], self.steps, strict=True))
            for last in product(*fewer):
                if prod((*extents[:first], *last)) == points:
                    yield _cropped(axes, (*extents[:first], *last))

    def folded(self, over: str) -> tuple[Var, ...]:
        return variables(*{"n": (self.n,), "m": (self.m,)}.get(over, ()))


@dataclass(frozen=True, slots=True)
class Hosted:
    """What the product's kernel does: `phases`, folding along `over`; kernels it makes needless.

    `rest` has for each reader it serves what remains of it, if anything; `statistics` are the
    buffers through which that reads the folds.
    """

    over: str = ""
    stores: tuple[Store, ...] = ()
    folding: tuple[Phase, ...] = ()
    finish: tuple[Store, ...] = ()
    rest: Mapping[str, Kernel | None] = field(default_factory=dict)
    statistics: tuple[Buffer, ...] = ()

    @property
    def written(self) -> tuple[str, ...]:
        return tuple(s.buffer for s in (*self.stores, *self.finish))

    @property
    def reads_product(self) -> bool:
        return any(k is not None for k in self.rest.values())

    def phases(self, element: Element) -> tuple[Phase, ...]:
        """All of it as phases: folds that need no other first, then those that do, then stores."""
        cols = element.folded(self.over)
        if not self.folding:
            return (Phase(cols, (), self.stores),)
        levels: dict[str, int] = {}
        for f in (f for p in self.folding for f in p.folds):
            levels[f.name] = max((levels[r] + 1 for r in references(f.body)), default=0)
        out = []
        for level in range(max(levels.values()) + 1):
            folds = (f for p in self.folding for f in p.folds if levels[f.name] == level)
            out.append(Phase(cols, tuple(folds), () if level else self.stores))
        return (*out, Phase((), (), self.finish))


@dataclass(frozen=True, slots=True)
class _View:
    """Axes as readers know them, what these are of the product's, and which of its points are."""

    axes: tuple[Index, ...]
    meaning: Mapping[Index, Index]
    inside: Conds


def _cropped(axes: tuple[Index, ...], extents: tuple[int, ...]) -> _View:
    """The axes up to `extents`: variables of their own, whose bounds index expressions rely on."""
    known = tuple(
        a if a.hi + 1 == n else ix.var(f"at{k}", n)
        for k, (a, n) in enumerate(zip(axes, extents, strict=True))
    )
    meaning = {x: a for x, a in zip(known, axes, strict=True) if x is not a}
    return _View(known, meaning, ix.conjunction(ix.less(a, x.hi + 1) for x, a in meaning.items()))


def references(e: b.Expr) -> tuple[str, ...]:
    """Names of the values an expression refers to."""
    return tuple(x.name for x in b.walk(e) if isinstance(x, b.Ref))


def variables(*xs: Index) -> tuple[Var, ...]:
    """Those of the axes that are variables (not of extent 1)."""
    return tuple(x for x in xs if isinstance(x, Var))


def number(axes: tuple[Index, ...]) -> Index:
    """The row-major number of a point."""
    return offsets.flatten(axes, offsets.row_major(tuple(a.hi + 1 for a in axes)))


def numbered(loops: tuple[Var, ...], axes: tuple[Index, ...]) -> Mapping[Index, Index] | None:
    """Loop variables as digits of the row-major number of `axes`, if the points are as many."""
    at, shape = number(axes), tuple(v.extent for v in loops)
    points = 1
    for v in loops:
        points *= v.extent
    if points != at.hi + 1:
        return None
    return dict(zip(loops, offsets.unflatten(at, shape), strict=True))


def host(
    state: Hosted,
    reader: Kernel,
    element: Element,
    blocked: frozenset[str],
    buffers: Mapping[str, Buffer],
    arch: Arch,
) -> Hosted | None:
    """`state` serving one more reader, or None if that must read the stored product.

    `blocked` are buffers that exist only after the product has run.
    """
    if reader.anchor == "contraction" or any(p.scans for p in reader.phases):
        return None
    phases = _with_own_names(without_keeps(reader.phases), state)
    if not any(p.cols for p in phases):
        found = _rewritten(state, reader, phases, element, "", blocked)
        return None if found is None else _stored(state, reader, found)
    for over in (state.over,) if state.over else ("n", "m"):
        found = _rewritten(state, reader, phases, element, over, blocked)
        if found is not None:
            return _folded(state, reader, phases, found, over, element, buffers, arch)
    return None


def _with_own_names(phases: tuple[Phase, ...], state: Hosted) -> tuple[Phase, ...]:
    """The phases with names for their folds that no other reader's folds have."""
    taken = sum(len(p.folds) for p in state.folding)
    folds = [f for p in phases for f in p.folds]
    names = {f.name: f"{f.kind}{taken + k}" for k, f in enumerate(folds)}

    def body(e: b.Expr) -> b.Expr:
        def change(x: b.Expr) -> b.Expr | None:
            return b.Ref(x.dtype, names[x.name]) if isinstance(x, b.Ref) else None

        return b.rebuild(e, change)

    renamed = (mapped(p, body) for p in phases)
    return tuple(
        replace(p, folds=tuple(replace(f, name=names[f.name]) for f in p.folds)) for p in renamed
    )


def _rewritten(
    state: Hosted,
    reader: Kernel,
    phases: tuple[Phase, ...],
    element: Element,
    over: str,
    blocked: frozenset[str],
) -> tuple[Phase, ...] | None:
    """The phases over the product's axes, or None if they do not visit its elements so."""
    for view in element.views(over, prod(v.extent for v in reader.rows)):
        found = _seen(state, reader, phases, element, over, blocked, view)
        if found is not None:
            return found
    return None


def _seen(
    state: Hosted,
    reader: Kernel,
    phases: tuple[Phase, ...],
    element: Element,
    over: str,
    blocked: frozenset[str],
    view: _View,
) -> tuple[Phase, ...] | None:
    """`_rewritten` by one view."""
    mapping = dict(numbered(reader.rows, view.axes) or {})
    if reader.rows and not mapping:
        return None
    for p in phases:
        digits = numbered(p.cols, element.folded(over)) if p.cols else {}
        if digits is None or (p.cols and not over):
            return None
        mapping |= digits
    known = (s for s in (*state.stores, *state.finish) if s.inside == view.inside)
    stored = {(s.buffer, s.offset): s.body for s in known}
    misplaced = False

    def value(x: b.Expr) -> b.Expr | None:
        nonlocal misplaced
        if not isinstance(x, b.Load) or x.buffer not in blocked:
            return None
        if x.buffer == element.buffer and x.offset == element.offset:
            return element.value
        misplaced |= x.indirect != () or (x.buffer, x.offset) not in stored
        return stored.get((x.buffer, x.offset))

    out = []
    for p in phases:
        moved = substituted(p, element.folded(over) if p.cols else (), mapping)
        moved = _within(moved, view, blocked)
        out.append(mapped(moved, lambda e: b.rebuild(e, value)))
    return None if misplaced else tuple(out)


def _within(phase: Phase, view: _View, blocked: frozenset[str]) -> Phase:
    """The phase over the product's axes: of points that are none of the reader's it stores nothing,
    and loads nothing that would not be there."""
    if not view.inside:
        return phase

    def change(e: b.Expr) -> b.Expr | None:
        if not isinstance(e, b.Load) or e.buffer in blocked:
            return None
        if not any(v in view.meaning for v in ix.variables(e.offset)):
            return None
        return b.guarded(view.inside, e, b.Lit(e.dtype, 0.0))

    guarded = mapped(phase, lambda e: b.rebuild(e, change))
    moved = substituted(guarded, guarded.cols, view.meaning)
    return replace(moved, stores=tuple(replace(s, inside=view.inside) for s in moved.stores))


def _stored(state: Hosted, reader: Kernel, phases: tuple[Phase, ...]) -> Hosted:
    """`state` with the stores of a pointwise reader."""
    stores = tuple(s for p in phases for s in p.stores)
    rest = {**state.rest, reader.name: None}
    return replace(state, stores=(*state.stores, *stores), rest=rest)


def _folded(
    state: Hosted,
    reader: Kernel,
    original: tuple[Phase, ...],
    phases: tuple[Phase, ...],
    over: str,
    element: Element,
    buffers: Mapping[str, Buffer],
    arch: Arch,
) -> Hosted | None:
    """`state` with the folds of a reader, where one pass can compute them all, and its stores."""
    folding = (*state.folding, *(Phase(p.cols, p.folds) for p in phases if p.folds))
    if not _one_pass(folding) or not all(_has_product(f.body) for p in phases for f in p.folds):
        return None
    at_elements = (s for p in phases if p.cols for s in p.stores if not references(s.body))
    at_rows = tuple(s for p in phases if not p.cols for s in p.stores)
    remaining = [
        (p.cols, s)
        for p, q in zip(original, phases, strict=True)
        for s, t in zip(p.stores, q.stores, strict=True)
        if p.cols and references(t.body)
    ]
    rest = _rest(reader, remaining, folding, element.kept(over), buffers, arch)
    if rest is None:
        return None
    return Hosted(
        over,
        (*state.stores, *at_elements),
        folding,
        (*state.finish, *at_rows, *rest.finish),
        {**state.rest, reader.name: rest.kernel},
        (*state.statistics, *rest.statistics),
    )


def _has_product(e: b.Expr) -> bool:
    return any(isinstance(x, b.Dot) for x in b.walk(e))


def _one_pass(phases: Iterable[Phase]) -> bool:
    """Whether one pass computes all folds, within the words a row may carry."""
    phases = tuple(phases)
    partials = partials_of(phases)
    if partials is None or sum(p.words for p in partials) > MOST_WORDS:
        return False
    kinds = {f.name: f.kind for p in phases for f in p.folds}
    # An infinite value must make the mean infinite: the sum of squares is then NaN either way.
    return all(
        kinds[r] == "sum"
        for p in partials
        if p.form == "squares" and p.shift is not None
        for r in references(p.shift)
    )


@dataclass(frozen=True, slots=True)
class _Rest:
    """What remains of a reader, and what it reads of each fold as a store and a buffer."""

    kernel: Kernel | None = None
    finish: tuple[Store, ...] = ()
    statistics: tuple[Buffer, ...] = ()


def _rest(
    reader: Kernel,
    stores: list[tuple[tuple[Var, ...], Store]],
    folding: tuple[Phase, ...],
    kept: tuple[Index, ...],
    buffers: Mapping[str, Buffer],
    arch: Arch,
) -> _Rest | None:
    """The stores that need folds and elements, as a pointwise kernel over the stored product."""
    if not stores:
        return _Rest()
    cols = stores[0][0]
    if any([v.extent for v in c] != [v.extent for v in cols] for c, _ in stores):
        return None
    shape = tuple(v.extent for v in variables(*kept))
    types = {f.name: f.result_dtype for p in folding for f in p.folds}
    needed = dict.fromkeys(r for _, s in stores for r in references(s.body))
    names = {r: f"{reader.name.removesuffix('_kernel')}_{r}" for r in needed}
    dense = offsets.row_major(shape)
    statistics = (Buffer(x, shape, types[r], dense, "temp") for r, x in names.items())
    finish = (Store(x, number(kept), b.Ref(types[r], r)) for r, x in names.items())
    row = number(tuple(reader.rows)) if reader.rows else ix.const(0)

    def statistic(x: b.Expr) -> b.Expr | None:
        return b.Load(x.dtype, names[x.name], row) if isinstance(x, b.Ref) else None

    def moved(own: tuple[Var, ...], s: Store) -> Store:
        mapping: dict[Index, Index] = dict(zip(own, cols, strict=True))
        body = b.rebuild(s.body, statistic)
        return Store(s.buffer, ix.substitute(s.offset, mapping), b.substitute(body, mapping))

    found = tuple(statistics)
    known = {**buffers, **{x.name: x for x in found}}
    phase = Phase((), (), tuple(moved(own, s) for own, s in stores))
    last = replace(reader, covers=reader.covers[-1:])
    kernel = shaped_kernel(last, (*reader.rows, *cols), (phase,), known, arch)
    return _Rest(kernel, tuple(finish), found)
