"""Level 1 values as level 1.5: the scalar body of a node at given coordinates.

A *sink* is a node that gets a value of its own: an input, a reduction, a library result or a
pointwise node that must be stored. `lower` writes any other node as a body over references to
sinks; which sinks become loads and which stay on chip is decided later (`fuse`, `nests`). No
kernels and no tiles are chosen here.
"""

from dataclasses import dataclass

from fusewright.ir import body as b
from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir.index import Index

Coords = tuple[Index, ...]


@dataclass(frozen=True, slots=True)
class SinkRef:
    """A use of `sink` at `coords`. `whole` when the complete tensor must exist first (a gather)."""

    sink: g.Node
    coords: Coords
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Lowered:
    """`body` over the axes of a domain; each Ref (or, for a gather, Load) in it is in `refs`.

    `depth` is the body's longest path of operations.
    """

    body: b.Expr
    refs: tuple[tuple[str, SinkRef], ...]
    depth: int


class Lowering:
    """Memo of one schedule: bodies of nodes at coordinates, against a fixed set of sinks."""

    def __init__(self, sinks: frozenset[g.Node]) -> None:
        self._sinks = sinks
        self._refs: dict[str, SinkRef] = {}
        self._memo: dict[tuple[g.Node, Coords], b.Expr] = {}

    def value(self, node: g.Node, coords: Coords) -> Lowered:
        """The body of `node` at `coords`, computed even if it is itself a (pointwise) sink."""
        return self._collect(self._expand(node, coords))

    def use(self, node: g.Node, coords: Coords) -> Lowered:
        """The body of `node` at `coords`, a mere reference if it is a sink."""
        return self._collect(self._at(node, coords))

    def _collect(self, expr: b.Expr) -> Lowered:
        names: dict[str, None] = {}
        depth: dict[b.Expr, int] = {}
        for e in b.walk(expr):
            depth[e] = 1 + max((depth[o] for o in e.operands), default=0)
            if isinstance(e, b.Ref | b.Load):
                names[e.name if isinstance(e, b.Ref) else e.buffer] = None
        return Lowered(expr, tuple((n, self._refs[n]) for n in names), depth[expr])

    def _at(self, node: g.Node, coords: Coords) -> b.Expr:
        if node in self._sinks:
            return self._reference(SinkRef(node, coords))
        key = (node, coords)
        if key not in self._memo:
            self._memo[key] = self._expand(node, coords)
        return self._memo[key]

    def _reference(self, ref: SinkRef) -> b.Ref:
        name = _ref_name(ref)
        self._refs[name] = ref
        return b.Ref(ref.sink.dtype, name)

    def _expand(self, node: g.Node, coords: Coords) -> b.Expr:
        match node:
            case g.Const():
                return b.Lit(node.dtype, node.value)
            case g.Iota():
                mapping = dict(zip(node.axes, coords, strict=True))
                return b.Coord(node.dtype, ix.substitute(node.value, mapping))
            case g.Unary():
                return b.Apply(node.dtype, node.op, (self._at(node.x, coords),))
            case g.Binary():
                args = (self._at(node.a, coords), self._at(node.b, coords))
                return b.Apply(node.dtype, node.op, args)
            case g.Where():
                return b.Choose(node.dtype, *(self._at(o, coords) for o in node.operands))
            case g.Cast():
                return b.Convert(node.dtype, self._at(node.x, coords))
            case g.View():
                return self._view(node, coords)
            case g.Concat():
                return self._concat(node, coords)
            case g.Gather():
                return self._gather(node, coords)
            case _:
                raise g.IRError(f"{node.kind} is not a pointwise node and not a sink")

    def _view(self, node: g.View, coords: Coords) -> b.Expr:
        mapping = dict(zip(node.axes, coords, strict=True))
        inner = tuple(ix.substitute(e, mapping) for e in node.index)
        conds = ix.substitute_conds(node.valid, mapping)
        fill = b.Lit(node.dtype, g.const(node.fill, node.dtype).value)  # type: ignore[attr-defined]
        if conds == ix.FALSE:
            return fill
        return b.guarded(conds, self._at(node.x, inner), fill)

    def _concat(self, node: g.Concat, coords: Coords) -> b.Expr:
        at, start = coords[node.axis], 0
        met: list[tuple[g.Node, int]] = []
        for x in node.xs:
            end = start + x.shape[node.axis]
            if start < end and at.hi >= start and at.lo < end:
                met.append((x, start))
            start = end
        if not met:
            raise g.IRError("concat of empty tensors has no value")
        return self._part(node, coords, met)

    def _part(self, node: g.Concat, coords: Coords, parts: list[tuple[g.Node, int]]) -> b.Expr:
        """One of `parts` with their starts, found by halving: long lists make no deep nest."""
        at = coords[node.axis]
        if len(parts) == 1:
            x, start = parts[0]
            return self._at(x, (*coords[: node.axis], at - start, *coords[node.axis + 1 :]))
        half = len(parts) // 2
        low, high = (self._part(node, coords, p) for p in (parts[:half], parts[half:]))
        return b.guarded(ix.conjunction((ix.less(at, parts[half][1]),)), low, high)

    def _gather(self, node: g.Gather, coords: Coords) -> b.Expr:
        mapping = dict(zip(node.axes, coords, strict=True))
        inner = tuple(ix.substitute(e, mapping) for e in node.index)
        where = self._at(node.where, coords)
        position = b.Checked(where.dtype, where, node.x.shape[node.axis])
        source = self._reference(SinkRef(node.x, inner, whole=True))
        # The stride's place holds the gathered axis until the source's strides are known.
        return b.Load(node.dtype, source.name, ix.const(0), ((position, node.axis),))


def _ref_name(ref: SinkRef) -> str:
    coords = ",".join(c.key.hex() for c in ref.coords)
    return f"@{ref.sink.key.hex()}[{coords}]{'!' if ref.whole else ''}"
