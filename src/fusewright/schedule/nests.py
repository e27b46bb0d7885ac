"""A cluster as a kernel: bodies resolved to loads, phases in order, values kept, axes collapsed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from fusewright.ir import body as b
from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir import offsets
from fusewright.ir.index import Index, Var
from fusewright.ir.kernel import AnchorName, Buffer, Fold, Keep, Kernel, Phase, Prefix, Store, Tile
from fusewright.ir.phases import mapped, substituted
from fusewright.ir.scalar import OPS
from fusewright.target.arch import Arch

from . import collapse, tile
from .fuse import Cluster, Member, describe, has_name, is_reduction, walked_axes
from .lower import SinkRef
from .names import Names


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a sink's value is in memory: element strides per axis and an offset in a buffer."""

    buffer: str
    strides: tuple[int, ...]
    offset: int = 0

    def at(self, coords: tuple[Index, ...]) -> Index:
        return offsets.flatten(coords, self.strides) + self.offset


Placements = Mapping[g.Node, Placement]


class _Resolver:
    """Bodies of one cluster's members over its variables, references resolved."""

    def __init__(self, cluster: Cluster, placements: Placements) -> None:
        self.cluster = cluster
        self._placements = placements
        self.named = {
            m.sink: f"{m.sink.kind.removeprefix('reduce_')}{k}"
            for k, m in enumerate(m for m in cluster.members if has_name(m.sink))
        }
        self._bodies: dict[g.Node, b.Expr] = {}

    def body(self, member: Member) -> b.Expr:
        if member.sink not in self._bodies:
            mapped = b.substitute(member.lowered.body, member.mapping)
            refs = dict(member.lowered.refs)
            self._bodies[member.sink] = b.rebuild(
                mapped, lambda e: self._resolve(e, refs, member), {}
            )
        return self._bodies[member.sink]

    def _resolve(self, e: b.Expr, refs: Mapping[str, SinkRef], member: Member) -> b.Expr | None:
        if isinstance(e, b.Ref) and e.name in refs:
            return self._reference(refs[e.name], member)
        if isinstance(e, b.Load) and e.buffer in refs:
            return self._gather(e, refs[e.buffer], refs, member)
        return None

    def _reference(self, ref: SinkRef, member: Member) -> b.Expr:
        if ref.sink in self.named:
            return b.Ref(ref.sink.dtype, self.named[ref.sink])
        inside = self.cluster.member(ref.sink)
        if inside is not None:
            return self.body(inside)
        place = self._placements[ref.sink]
        return b.Load(ref.sink.dtype, place.buffer, place.at(member.at(ref.coords)))

    def _gather(
        self, e: b.Load, ref: SinkRef, refs: Mapping[str, SinkRef], member: Member
    ) -> b.Expr:
        place = self._placements[ref.sink]
        ((position, axis),) = e.indirect
        inner = b.rebuild(position, lambda x: self._resolve(x, refs, member))
        offset = place.at(member.at(ref.coords))
        return b.Load(e.dtype, place.buffer, offset, ((inner, place.strides[axis]),))


@dataclass(frozen=True, slots=True)
class _Item:
    """A fold or a store, before it is given to a phase."""

    level: int
    cols: tuple[Var, ...]
    what: Fold | Store


def _items(
    cluster: Cluster, resolver: _Resolver, placements: Placements
) -> tuple[list[_Item], tuple[Prefix, ...]]:
    """The folds and stores, and the scans that some of them refer to."""
    levels: dict[str, int] = {}  # the first phase in which a name has its value

    def level(e: b.Expr) -> int:
        return max((levels[x.name] for x in b.walk(e) if isinstance(x, b.Ref)), default=0)

    out, scans = [], []
    for m in cluster.members:
        body = resolver.body(m)
        if isinstance(m.sink, g.Scan):
            scan = _prefix(m, resolver.named[m.sink], body)
            scans.append(scan)
            levels[scan.name] = level(body)
            body = b.Ref(m.sink.dtype, scan.name)
        elif is_reduction(m.sink):
            fold = _fold(m, resolver.named[m.sink], body)
            levels[fold.name] = level(body) + 1
            out.append(_Item(level(body), cluster.cols(m), fold))
            body = b.Ref(m.sink.dtype, fold.name)
        if m.sink in placements:
            place = placements[m.sink]
            store = Store(place.buffer, place.at(m.result_coords), body)
            cols = () if is_reduction(m.sink) else cluster.cols(m)
            out.append(_Item(level(body), cols, store))
    return out, tuple(scans)


def _position(member: Member) -> Index:
    """Where a point is along the axis its sink walks."""
    (axis,) = walked_axes(member.sink)
    return member.at((ix.axes(member.domain)[axis],))[0]


def _prefix(member: Member, name: str, body: b.Expr) -> Prefix:
    sink = member.sink
    assert isinstance(sink, g.Scan)
    at = _position(member) if sink.op in ("argmax", "argmin") else None
    dtype = sink.x.dtype
    return Prefix(name, sink.op, dtype, body, sink.reverse, sink.exclusive, at)  # type: ignore[arg-type]


def _fold(member: Member, name: str, body: b.Expr) -> Fold:
    sink = member.sink
    if isinstance(sink, g.ArgReduce):
        return Fold(name, sink.op, sink.x.dtype, body, _position(member))
    assert isinstance(sink, g.Reduce)
    return Fold(name, sink.op, sink.dtype, body)  # type: ignore[arg-type]


def _phases(items: list[_Item], scans: tuple[Prefix, ...]) -> list[Phase]:
    """Items gathered into as few phases as their order allows."""
    slots = {(i.level, i.cols): None for i in items if isinstance(i.what, Fold)}
    for i in (i for i in items if isinstance(i.what, Store)):
        hosts = [s for s in slots if s[1] == i.cols and s[0] >= i.level]
        if not hosts:
            slots[i.level, i.cols] = None
    order = sorted(slots, key=lambda s: (s[0], not s[1]))
    folds: dict[tuple[int, tuple[Var, ...]], list[Fold]] = {s: [] for s in order}
    stores: dict[tuple[int, tuple[Var, ...]], list[Store]] = {s: [] for s in order}
    for i in items:
        host = next(s for s in order if s[1] == i.cols and s[0] >= i.level)
        if isinstance(i.what, Fold):
            folds[i.level, i.cols].append(i.what)
        else:
            stores[host].append(i.what)
    phases = (Phase(s[1], tuple(folds[s]), tuple(stores[s])) for s in order)
    return [replace(p, scans=_needed(p.bodies, scans)) for p in phases]


def _needed(bodies: tuple[b.Expr, ...], scans: tuple[Prefix, ...]) -> tuple[Prefix, ...]:
    """The scans that bodies refer to, directly or through other scans."""
    needed, wanted = [], list(bodies)
    for s in reversed(scans):
        if any(isinstance(e, b.Ref) and e.name == s.name for e in b.walk(*wanted)):
            needed.append(s)
            wanted.append(s.body)
    return tuple(reversed(needed))


# ------------------------------------------------------------------------------- values kept


def _depends_on(e: b.Expr, variables: tuple[Var, ...]) -> bool:
    exprs = collapse.index_expressions((e,))
    return any(v in variables for x in exprs for v in ix.variables(x))


def _worth_keeping(e: b.Expr, cols: tuple[Var, ...], arch: Arch) -> bool:
    if isinstance(e, b.Lit | b.Coord | b.Ref) or not _depends_on(e, cols):
        return False
    if arch.kind == "cuda":
        return bool(b.loads(e))
    # On a CPU the row is still in cache: only recomputation is worth avoiding.
    return any(isinstance(x, b.Apply) and OPS[x.op].cost > 1 for x in b.walk(e))


def _keep_values(phases: list[Phase], arch: Arch, always: bool = False) -> list[Phase]:
    """Values that several phases over the same cols need, computed in the first of them only.

    Where registers suffice for them, or `always`. None beside a scan: its threads take other points
    of a row than those of a fold.
    """
    if any(p.scans for p in phases):
        return phases
    seen: dict[tuple[Var, ...], dict[b.Expr, int]] = {}
    homes: dict[tuple[Var, ...], dict[b.Expr, int]] = {p.cols: {} for p in phases}
    for k, p in enumerate(phases):
        known = seen.setdefault(p.cols, {}) if p.cols else {}
        for root in p.bodies:
            _find_shared(root, known, homes[p.cols], p.cols, arch)
        for e in b.walk(*p.bodies):
            known.setdefault(e, k)
    extent = max((p.extent for p in phases), default=1)
    kept = [(cols, e) for cols, at in homes.items() for e in at]
    if not kept or not (always or tile.registers_suffice(extent, len(kept), arch)):
        return phases
    names = {key: f"kept{k}" for k, key in enumerate(kept)}
    return [_with_keeps(k, p, homes[p.cols], names) for k, p in enumerate(phases)]


def _find_shared(
    root: b.Expr,
    known: Mapping[b.Expr, int],
    homes: dict[b.Expr, int],
    cols: tuple[Var, ...],
    arch: Arch,
) -> None:
    stack, visited = [root], set()
    while stack:
        e = stack.pop()
        if e in visited:
            continue
        visited.add(e)
        if e in known and _worth_keeping(e, cols, arch):
            homes.setdefault(e, known[e])
        else:
            stack.extend(e.operands)


def _with_keeps(
    number: int,
    phase: Phase,
    homes: Mapping[b.Expr, int],
    names: Mapping[tuple[tuple[Var, ...], b.Expr], str],
) -> Phase:
    """`homes` are the phases that compute the values kept over this phase's cols."""

    def replaced(e: b.Expr, itself: b.Expr | None = None) -> b.Expr:
        def change(x: b.Expr) -> b.Expr | None:
            if x != itself and homes.get(x, number + 1) <= number:
                return b.Ref(x.dtype, names[phase.cols, x])
            return None

        return b.rebuild(e, change)

    here = [e for e in b.walk(*phase.bodies) if homes.get(e) == number]
    keeps = tuple(Keep(names[phase.cols, e], replaced(e, itself=e)) for e in here)
    return replace(mapped(phase, replaced), keeps=keeps)


# ---------------------------------------------------------------------------------- the kernel


def _expressions(phases: list[Phase]) -> tuple[Index, ...]:
    bodies = [x for p in phases for x in p.bodies]
    stores = (s.offset for p in phases for s in p.stores)
    named = (x for p in phases for x in (*p.folds, *p.scans))
    positions = (x.position for x in named if x.position is not None)
    return (*collapse.index_expressions(bodies), *stores, *positions)


def _collapsed(
    rows: tuple[Var, ...], phases: list[Phase], buffers: Mapping[str, Buffer]
) -> tuple[tuple[Var, ...], list[Phase]]:
    def weighted(ps: list[Phase]) -> list[tuple[int, Index]]:
        return [(buffers[n].nbytes, o) for n, o in tile.accesses(tuple(ps))]

    rows = collapse.by_stride(rows, weighted(phases))
    new_rows, mapping = collapse.merge(rows, _expressions(phases), lambda k: f"m{k}")
    phases = [substituted(p, p.cols, mapping) for p in phases]
    for number, cols in enumerate(dict.fromkeys(p.cols for p in phases if p.cols)):
        group = [p for p in phases if p.cols == cols]
        ordered = collapse.by_stride(cols, weighted(group))
        prefix = "k" if number == 0 else f"k{number}_"
        new_cols, mapping = collapse.merge(
            ordered, _expressions(group), lambda k, prefix=prefix: f"{prefix}m{k}"
        )
        phases = [substituted(p, new_cols, mapping) if p.cols == cols else p for p in phases]
    return _renamed(new_rows, phases)


_ROW_NAMES = ("i", "j", "m", "n")


def _renamed(rows: tuple[Var, ...], phases: list[Phase]) -> tuple[tuple[Var, ...], list[Phase]]:
    """Short names in the final order: rows i, j, ...; cols k, l, ... as a person would write."""

    def names(count: int, letters: tuple[str, ...]) -> tuple[str, ...]:
        return (
            letters[:count]
            if count <= len(letters)
            else tuple(f"{letters[0]}{k}" for k in range(count))
        )

    row_map = {v: Var(n, v.extent) for v, n in zip(rows, names(len(rows), _ROW_NAMES), strict=True)}
    out = []
    for p in phases:
        cols = {
            v: Var(n, v.extent)
            for v, n in zip(p.cols, names(len(p.cols), ("k", "l", "q")), strict=True)
        }
        out.append(substituted(p, tuple(cols.values()), {**row_map, **cols}))
    return tuple(row_map.values()), out


def _mapped(
    rows: tuple[Var, ...], phases: list[Phase], buffers: Mapping[str, Buffer], arch: Arch
) -> tuple[tuple[Var, ...], tuple[Phase, ...], AnchorName, Tile]:
    """Rows and phases in their final order with what is kept, anchor and tile.

    Rows that do not fit a block's registers are kept by a cluster of blocks where one can.
    """
    kept = _keep_values(phases, arch)
    new_rows, found = _collapsed(rows, kept, buffers)
    nest = tile.Nest(new_rows, tuple(found), buffers, arch)
    anchor = tile.choose_anchor(nest)
    if anchor == "row_reduce" and kept == phases and arch.cluster > 1:
        wide_rows, wide = _collapsed(rows, _keep_values(phases, arch, always=True), buffers)
        clustered = tile.cluster_tile(tile.Nest(wide_rows, tuple(wide), buffers, arch))
        if clustered is not None:
            return wide_rows, tuple(wide), "row_cluster", clustered
    return nest.rows, nest.phases, anchor, tile.choose_tile(nest, anchor)


def build_kernel(
    cluster: Cluster,
    names: Names,
    placements: Placements,
    stored: Placements,
    buffers: Mapping[str, Buffer],
    arch: Arch,
    origins: Mapping[g.Node, g.Origin],
) -> Kernel:
    """The kernel of a cluster. `stored` are the members' results that others need, `placements`
    every sink it may read."""
    resolver = _Resolver(cluster, placements)
    phases = _phases(*_items(cluster, resolver, stored))
    rows, final, anchor, chosen = _mapped(cluster.rows, phases, buffers, arch)
    read = dict.fromkeys(e.buffer for p in final for e in b.loads(*p.bodies))
    written = dict.fromkeys(s.buffer for p in final for s in p.stores)
    lines = (origins[m.sink].text for m in cluster.members if m.sink in origins)
    return Kernel(
        names.kernel(final, tuple(m.sink for m in cluster.members)),
        anchor,
        rows,
        final,
        tuple(read),
        tuple(written),
        chosen,
        tuple(describe(m.sink) for m in cluster.members),
        tuple(dict.fromkeys(t for t in lines if t)),
    )


def shaped_kernel(
    kernel: Kernel,
    rows: tuple[Var, ...],
    phases: tuple[Phase, ...],
    buffers: Mapping[str, Buffer],
    arch: Arch,
) -> Kernel:
    """`kernel` with another nest: axes collapsed, anchor and tile chosen for it."""
    rows, final, anchor, chosen = _mapped(rows, list(phases), buffers, arch)
    return replace(
        kernel,
        anchor=anchor,
        rows=rows,
        phases=final,
        reads=tuple(dict.fromkeys(e.buffer for p in final for e in b.loads(*p.bodies))),
        writes=tuple(dict.fromkeys(s.buffer for p in final for s in p.stores)),
        tile=chosen,
    )
