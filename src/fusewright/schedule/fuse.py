"""Which values share a kernel: sinks gathered into clusters, with a reason for each refusal.

A cluster is a future kernel: a set of sinks with, for each, its domain written over the cluster's
loop variables (`spaces`). Sinks are visited in topological order and join the latest cluster they
take values from, else one that reads the same data, else they found a new one. Code and memory
layout are decided later (`nests`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod

from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir.index import Index, Var
from fusewright.ir.kernel import WhyNot
from fusewright.target.arch import Arch

from . import spaces
from .lower import Lowered, Lowering, SinkRef
from .tile import row_capacity

# Operations in sequence in one body: compilers slow down on huge expressions.
LONGEST_BODY = 256
# Points of a row so many times those it folds go to a kernel of their own where rows are few waves.
MUCH_WIDER, UNEVEN_WAVES = 64, 16
# A nest with few rows is still worth fusing when one pass over it costs less than a launch.
SMALL_NEST = 1 << 15


@dataclass(frozen=True, slots=True)
class Member:
    """A sink in a cluster: `mapping` writes its domain axes over the cluster's variables.

    `variables` are those of the mapped axes, outermost first; `depth` counts the operations in
    sequence in the body, with what pointwise members of its cluster put into it.
    """

    sink: g.Node
    lowered: Lowered
    mapping: Mapping[Index, Index]
    variables: tuple[Var, ...]
    depth: int

    @property
    def domain(self) -> tuple[int, ...]:
        return domain(self.sink)

    def at(self, coords: tuple[Index, ...]) -> tuple[Index, ...]:
        """Coordinates over the sink's domain axes, over the cluster's variables."""
        return tuple(ix.substitute(c, self.mapping) for c in coords)

    @property
    def result_coords(self) -> tuple[Index, ...]:
        """Where the sink's value lives: its result axes over the cluster's variables."""
        return self.at(result_axes(self.sink))


@dataclass(frozen=True, slots=True)
class Cluster:
    """A future kernel. `rows` are the variables every member has; its others are its cols."""

    number: int
    rows: tuple[Var, ...]
    by_sink: Mapping[g.Node, Member]

    @property
    def members(self) -> tuple[Member, ...]:
        """The members in the order in which they joined."""
        return tuple(self.by_sink.values())

    @property
    def reduces(self) -> bool:
        return any(walked_axes(m.sink) for m in self.members)

    def member(self, sink: g.Node) -> Member | None:
        return self.by_sink.get(sink)

    def cols(self, member: Member) -> tuple[Var, ...]:
        """The member's variables that are not rows, outermost domain axis first."""
        return tuple(v for v in member.variables if v not in self.rows)


def _mapped(sink: g.Node, mapping: Mapping[Index, Index]) -> tuple[Index, ...]:
    return tuple(mapping.get(a, a) for a in ix.axes(domain(sink)))


def _in_order(e: Index) -> tuple[Var, ...]:
    terms = sorted(ix.parts(e)[1], key=lambda t: -abs(t[0]))
    return tuple(v for _, a in terms for v in ix.variables(a))


def is_reduction(node: g.Node) -> bool:
    return isinstance(node, g.Reduce | g.ArgReduce)


def has_name(node: g.Node) -> bool:
    """Whether a kernel computes the sink as a named value: a reduction's result or a scan's."""
    return is_reduction(node) or isinstance(node, g.Scan)


def domain(sink: g.Node) -> tuple[int, ...]:
    """The shape a sink's loop nest visits."""
    return sink.x.shape if isinstance(sink, g.Reduce | g.ArgReduce) else sink.shape


def folded_axes(sink: g.Node) -> tuple[int, ...]:
    """The axes of a sink's domain that it folds away."""
    if isinstance(sink, g.Reduce):
        return sink.axes_reduced
    return (sink.axis,) if isinstance(sink, g.ArgReduce) else ()


def walked_axes(sink: g.Node) -> tuple[int, ...]:
    """The axes of a sink's domain that are no rows of a kernel it founds: folded or scanned."""
    return (sink.axis,) if isinstance(sink, g.Scan) else folded_axes(sink)


def result_axes(sink: g.Node) -> tuple[Index, ...]:
    """The domain axes that survive as the axes of the sink's result."""
    folded = folded_axes(sink)
    return tuple(a for k, a in enumerate(ix.axes(domain(sink))) if k not in folded)


@dataclass(slots=True)
class Fusion:
    """The state of one fusion: clusters by number, and who depends on whom.

    `depends` holds what each unit takes values from, `below` all it waits for, as bits.
    """

    arch: Arch
    calls: Mapping[g.Node, tuple[g.Node, ...]]
    clusters: dict[int, Cluster] = field(default_factory=dict)
    owner: dict[g.Node, int] = field(default_factory=dict)
    readers: dict[g.Node, list[int]] = field(default_factory=dict)
    depends: dict[int, set[int]] = field(default_factory=dict)
    below: dict[int, int] = field(default_factory=dict)
    why_not: dict[tuple[str, str], None] = field(default_factory=dict)
    _units_of_calls: dict[g.Call, int] = field(default_factory=dict)
    _last_ordered: set[int] = field(default_factory=set)

    def place_call(self, node: g.Node) -> None:
        """A library result: a unit of its own (one per call), in no cluster."""
        call = node.call if isinstance(node, g.Extern) else None
        if call is not None and call in self._units_of_calls:
            self.owner[node] = self._units_of_calls[call]
            return
        number = self._new_unit(node)
        self._link(number, {self.owner[d] for d in self.calls[node] if d in self.owner})
        if call is not None:
            self._units_of_calls[call] = number
            if call.order is not None:
                self._link(number, self._last_ordered)
                self._last_ordered = {number}

    def place(self, sink: g.Node, lowered: Lowered) -> None:
        """Put a sink into a cluster that admits it, else found one."""
        units = {self.owner[r.sink] for _, r in lowered.refs if r.sink in self.owner}
        for number in self._candidates(lowered):
            joined = self._join(self.clusters[number], sink, lowered, units)
            if joined is not None:
                self.clusters[number] = joined
                self._record(sink, number, lowered, units - {number})
                return
        number = self._new_unit(sink)
        self.clusters[number] = _found(number, sink, lowered)
        self._record(sink, number, lowered, units)

    def _new_unit(self, node: g.Node) -> int:
        number = len(self.depends)
        self.owner[node] = number
        self.depends[number] = set()
        self.below[number] = 0
        return number

    def _link(self, number: int, units: set[int]) -> None:
        """Let a unit, and so all that wait for it, wait for `units`."""
        self.depends[number] |= units
        for u in units:
            self.below[number] |= self.below[u] | 1 << u
        for n, waits in self.below.items():
            if waits >> number & 1:
                self.below[n] = waits | self.below[number]

    def _record(self, sink: g.Node, number: int, lowered: Lowered, units: set[int]) -> None:
        self.owner[sink] = number
        self._link(number, units)
        for _, ref in lowered.refs:
            readers = self.readers.setdefault(ref.sink, [])
            if number not in readers:
                readers.append(number)

    def _candidates(self, lowered: Lowered) -> list[int]:
        """Clusters worth trying: producers latest first, then readers of the same data."""
        sinks = [r.sink for _, r in lowered.refs]
        producers = sorted({self.owner[s] for s in sinks if s in self.owner}, reverse=True)
        sharing = sorted({n for s in sinks for n in self.readers.get(s, ())}, reverse=True)
        order = dict.fromkeys((*producers, *sharing))
        return [n for n in order if n in self.clusters]

    def _join(
        self, cluster: Cluster, sink: g.Node, lowered: Lowered, units: set[int]
    ) -> Cluster | None:
        others = units - {cluster.number}
        if any(self.below[u] >> cluster.number & 1 for u in others):
            return self._refuse(sink, cluster, "a value it needs is computed after that kernel")
        if any(r.whole and self.owner.get(r.sink) == cluster.number for _, r in lowered.refs):
            return self._refuse(sink, cluster, "it gathers from a tensor that kernel still writes")
        if _depth(lowered, cluster.by_sink) > LONGEST_BODY:
            return self._refuse(sink, cluster, "the expression would grow too long to compile well")
        bindings = match(cluster, sink, lowered)
        if bindings is None:
            return self._refuse(sink, cluster, "their index spaces differ")
        joined = admit(cluster, sink, lowered, bindings)
        if joined is None:
            return self._refuse(sink, cluster, "it does not visit that kernel's rows once each")
        reason = _out_of_step(joined) or self._unprofitable(joined)
        return self._refuse(sink, cluster, reason) if reason else joined

    def _refuse(self, sink: g.Node, cluster: Cluster, reason: str) -> None:
        if cluster.number == self.owner.get(sink):
            return
        first = cluster.members[0].sink
        self.why_not[f"{describe(sink)} into the kernel of {describe(first)}", reason] = None

    def _unprofitable(self, joined: Cluster) -> str | None:
        newest = joined.members[-1]
        if not joined.reduces or not joined.cols(newest):
            return None
        rows = prod(v.extent for v in joined.rows)
        widest = max(prod(v.extent for v in joined.cols(m)) for m in joined.members)
        if rows * widest <= SMALL_NEST:
            return None
        cuda = self.arch.kind == "cuda"
        wanted = self.arch.units if cuda else self.arch.units // 8
        if rows < wanted:
            return f"{rows} rows are too few to fill the target with one kernel"
        if self._walks_alone(joined, newest):
            return "its long rows share nothing with what is folded before: apart, all are in order"
        own = prod(v.extent for v in joined.cols(newest))
        before = max(prod(v.extent for v in joined.cols(m)) for m in joined.members[:-1])
        if cuda and own >= MUCH_WIDER * before and rows < UNEVEN_WAVES * self.arch.units:
            return f"a row's {own} points take more threads than its reductions of {before}"
        walks = {walk(joined, m) for m in joined.members if joined.cols(m)}
        return "they walk memory along different axes" if len(walks) > 1 else None

    def _walks_alone(self, joined: Cluster, newest: Member) -> bool:
        """Whether a pointwise member reads nothing of its rows that others of the kernel read.

        On a GPU rows that fit no chip are then better streamed in memory order by all blocks.
        """
        extent = prod(v.extent for v in joined.cols(newest))
        short = extent * newest.sink.dtype.bytes <= row_capacity(self.arch)
        if self.arch.kind != "cuda" or has_name(newest.sink) or short:
            return False
        read = {r.sink for m in joined.members[:-1] for _, r in m.lowered.refs}
        return not any(r.sink in read and r.sink.size >= extent for _, r in newest.lowered.refs)

    def refusals(self) -> tuple[WhyNot, ...]:
        return tuple(WhyNot(what, reason) for what, reason in self.why_not)


def _out_of_step(joined: Cluster) -> str | None:
    """Why the members of a kernel with a scan cannot share its one pass over the columns."""
    scans = [m.sink for m in joined.members if isinstance(m.sink, g.Scan)]
    if not scans:
        return None
    if len({s.reverse for s in scans}) > 1:
        return "the scans run in opposite directions"
    columns = {c for m in joined.members if (c := joined.cols(m))}
    one = len(columns) == 1 and all(len(c) == 1 for c in columns)
    return None if one else "a scan walks its columns alone, in their order"


def _depth(lowered: Lowered, by_sink: Mapping[g.Node, Member]) -> int:
    """Operations in sequence in a sink's body, pointwise members that it refers to included."""
    inside = (by_sink[r.sink] for _, r in lowered.refs if r.sink in by_sink)
    return lowered.depth + max((m.depth for m in inside if not has_name(m.sink)), default=0)


def describe(node: g.Node) -> str:
    """A node for people: what it is and its shape."""
    return f"{node.kind}{list(node.shape)}"


def _found(number: int, sink: g.Node, lowered: Lowered) -> Cluster:
    axes = ix.axes(domain(sink))
    walked = walked_axes(sink)
    fresh = {k: Var(f"p{k}", a.extent) for k, a in enumerate(axes) if isinstance(a, Var)}
    rows = tuple(v for k, v in fresh.items() if k not in walked)
    mapping: dict[Index, Index] = {axes[k]: v for k, v in fresh.items()}
    return Cluster(number, rows, {sink: _member(sink, lowered, mapping, {})})


def _member(
    sink: g.Node,
    lowered: Lowered,
    mapping: Mapping[Index, Index],
    by_sink: Mapping[g.Node, Member],
) -> Member:
    variables = (v for e in _mapped(sink, mapping) for v in _in_order(e))
    return Member(
        sink, lowered, mapping, tuple(dict.fromkeys(variables)), _depth(lowered, by_sink)
    )


def match(cluster: Cluster, sink: g.Node, lowered: Lowered) -> Mapping[Index, Index] | None:
    """The sink's domain axes over the cluster's variables, or None if they cannot be matched.

    Values the sink takes from the cluster must meet exactly; data both read are matched where
    possible, so that a value loaded once serves both.
    """
    free = tuple(a for a in ix.axes(domain(sink)) if isinstance(a, Var))
    for m in cluster.members:
        if m.domain == domain(sink) and _meets(cluster, lowered, m.mapping):
            return {a: m.mapping[a] for a in free}
    found = _match(cluster, lowered, free)
    if found is not None:
        return found
    coords = [c for _, r in lowered.refs for c in r.coords]
    digits = spaces.split_radices(coords, free)
    if not digits:
        return None
    parts = [v for a in free for v in ix.variables(digits.get(a, a))]
    inner = _match(cluster, _renamed(lowered, digits), tuple(parts))
    if inner is None:
        return None
    return {a: ix.substitute(digits.get(a, a), inner) for a in free}


def _meets(cluster: Cluster, lowered: Lowered, mapping: Mapping[Index, Index]) -> bool:
    """Whether under `mapping` the sink takes values of the cluster, or its data, where they are."""

    def here(r: SinkRef) -> tuple[Index, ...]:
        return tuple(ix.substitute(c, mapping) for c in r.coords)

    inside = [(r, m) for _, r in lowered.refs if (m := cluster.member(r.sink)) is not None]
    if inside:
        return all(here(r) == m.result_coords for r, m in inside)
    return any(
        here(mine) == m.at(theirs.coords)
        for _, mine in lowered.refs
        for m in cluster.members
        for _, theirs in m.lowered.refs
        if theirs.sink == mine.sink and theirs.sink.shape
    )


def _renamed(lowered: Lowered, digits: Mapping[Index, Index]) -> Lowered:
    refs = tuple(
        (n, replace(r, coords=tuple(ix.substitute(c, digits) for c in r.coords)))
        for n, r in lowered.refs
    )
    return replace(lowered, refs=refs)


def _match(
    cluster: Cluster, lowered: Lowered, free: tuple[Index, ...]
) -> Mapping[Index, Index] | None:
    inside = [(r, m) for _, r in lowered.refs if (m := cluster.member(r.sink)) is not None]
    required = [p for r, m in inside for p in zip(r.coords, m.result_coords, strict=True)]
    bound = spaces.unify(required, {}, free)
    if bound is None:
        return None
    shared = not inside
    for mine, theirs in _common_reads(cluster, lowered):
        more = spaces.unify(zip(mine.coords, theirs, strict=True), bound, free)
        if more is not None:
            bound, shared = more, False
    if shared:
        return None  # nothing in common: no reason to share a kernel
    return _complete(cluster, bound, free)


def _common_reads(cluster: Cluster, lowered: Lowered) -> list[tuple[SinkRef, tuple[Index, ...]]]:
    """Reads of the sink beside reads of members of the same tensor, at the members' coordinates."""
    out = []
    for _, mine in lowered.refs:
        for m in cluster.members:
            for _, theirs in m.lowered.refs:
                if theirs.sink == mine.sink and theirs.sink.shape:
                    out.append((mine, m.at(theirs.coords)))
    return out


def _complete(
    cluster: Cluster, bound: Mapping[Index, Index], free: tuple[Index, ...]
) -> Mapping[Index, Index]:
    """Bindings with a new column variable for every axis that nothing in the cluster fixes."""
    out = dict(bound)
    columns = [v for m in cluster.members for v in cluster.cols(m)]
    used = {v for e in out.values() for v in ix.variables(e)}
    spare = [v for v in dict.fromkeys(columns) if v not in used]
    taken = {v.name for v in (*cluster.rows, *columns)}
    for a in free:
        if a in out or not isinstance(a, Var):
            continue
        reuse = next((v for v in spare if v.extent == a.extent), None)
        if reuse is not None:
            spare.remove(reuse)
        else:
            name = next(f"c{k}" for k in range(len(taken) + 1) if f"c{k}" not in taken)
            taken.add(name)
            reuse = Var(name, a.extent)
        out[a] = reuse
    return out


def admit(
    cluster: Cluster, sink: g.Node, lowered: Lowered, bindings: Mapping[Index, Index]
) -> Cluster | None:
    """The cluster with the sink in it, or None if the sink's rows are not the cluster's rows."""
    axes = _mapped(sink, bindings)
    if not spaces.is_bijection(axes, domain(sink)):
        return None
    member = _member(sink, lowered, bindings, cluster.by_sink)
    members = {**cluster.by_sink, sink: member}
    walked = {v for k in walked_axes(sink) for v in ix.variables(axes[k])}
    kept = {v for e in member.result_coords for v in ix.variables(e)}
    rows = set(cluster.rows)
    if isinstance(sink, g.Scan):
        kept -= walked
    elif not is_reduction(sink):
        fits = rows <= kept if cluster.reduces else rows == kept
        return replace(cluster, by_sink=members) if fits else None
    if kept & walked:
        return None
    if cluster.reduces:
        fits = kept == rows
        return replace(cluster, by_sink=members) if fits else None
    if kept | walked != rows:
        return None
    new_rows = tuple(v for v in cluster.rows if v in kept)
    return replace(cluster, rows=new_rows, by_sink=members)


def walk(cluster: Cluster, member: Member) -> str:
    """Whether neighbours in memory are neighbours along the "cols" or the "rows" of the nest."""
    return "rows" if member.variables and member.variables[-1] in cluster.rows else "cols"


def fuse(
    sinks: tuple[g.Node, ...],
    calls: Mapping[g.Node, tuple[g.Node, ...]],
    lowering: Lowering,
    arch: Arch,
) -> Fusion:
    """Clusters over `sinks` (operands first); `calls` are library results with what they read."""
    state = Fusion(arch, calls)
    for sink in sinks:
        if sink in calls:
            state.place_call(sink)
        elif has_name(sink):
            x = sink.operands[0]
            state.place(sink, lowering.use(x, x.axes))
        else:
            state.place(sink, lowering.value(sink, sink.axes))
    return state
