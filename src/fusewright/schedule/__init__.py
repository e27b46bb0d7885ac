"""Schedule: the rewritten Graph as a Program of kernels and library calls.

The stages, in order: `prepare` (what is decided on the graph), `plan` (what must be in memory),
`fuse` (what shares a kernel), `nests` (kernels), and here the order of steps and the names;
`skeletons` (which products become kernels).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fusewright.context import Context
from fusewright.ir import graph as g
from fusewright.ir.kernel import Buffer, Kernel, LibraryCall, Program, Step, Strided, WhyNot
from fusewright.options import Options
from fusewright.target.arch import Arch

from . import library
from .convolutions import refusal
from .fuse import Cluster, Fusion, describe, fuse
from .lower import Lowering
from .names import Names
from .nests import Placement, build_kernel
from .plan import Plan, make_plan, returned_view, spilled
from .prepare import as_reduction, prepare
from .skeletons import alternatives, use_skeletons

__all__ = ["alternatives", "schedule", "without_skeletons"]


def schedule(graph: g.Graph, context: Context, arch: Arch) -> Program:
    """Everything one forward call executes on `arch`, in order."""
    program = without_skeletons(graph, arch, context.options)
    return use_skeletons(program, arch, context.options, context.tuning)


def without_skeletons(graph: g.Graph, arch: Arch, options: Options) -> Program:
    """The same with all products as library calls."""
    graph = prepare(graph, arch, options)
    plan = make_plan(graph, arch)
    refused: tuple[WhyNot, ...] = ()
    if plan.loops:
        refused = tuple(
            WhyNot(
                f"library call for {describe(c)}",
                "no library call has its index maps; it runs as a loop nest",
            )
            for c in plan.loops
        )
        graph = _without(graph, plan)
        plan = make_plan(graph, arch)
    for c in plan.contracts:
        if isinstance(c, g.Contract) and (reason := refusal(c, arch, options)) is not None:
            told = WhyNot(f"{describe(c)} on the tensor cores", reason)
            refused = (*refused, told)
    fusion = _fused(plan, arch)
    return _Assembly(plan, fusion, arch).program(refused)


def _without(graph: g.Graph, plan: Plan) -> g.Graph:
    def change(node: g.Node, operands: tuple[g.Node, ...]) -> g.Node:
        new = node.with_operands(operands) if operands else node
        return as_reduction(new) if node in plan.loops else new  # type: ignore[arg-type]

    return g.rebuild(graph, change)


def _fused(plan: Plan, arch: Arch) -> Fusion:
    """Fusion, repeated with the nodes stored that several kernels would otherwise recompute."""
    while True:
        fusion = _fuse_once(plan, arch)
        members = {n: tuple(m.sink for m in c.members) for n, c in fusion.clusters.items()}
        more = spilled(plan, members)
        if not more:
            return fusion
        plan.required.update(dict.fromkeys(more))


def _fuse_once(plan: Plan, arch: Arch) -> Fusion:
    order = _order_of_required(plan)
    calls = {n: tuple(o.base for o in _operands(plan, n)) for n in order if _is_call(plan, n)}
    sinks = tuple(n for n in order if not isinstance(n, g.Input) and n.size)
    return fuse(sinks, calls, Lowering(frozenset(order)), arch)


def _order_of_required(plan: Plan) -> tuple[g.Node, ...]:
    """What must be in memory, each after all it reads.

    A call may read a copy that the graph does not have (an operand merged into matrix form): the
    operands of the calls come first as roots of their own, those of earlier calls before others.
    """
    calls = [n for n in g.topological(plan.required) if _is_call(plan, n) and n in plan.required]
    operands = [o.base for n in calls for o in _operands(plan, n)]
    nodes = g.topological((*operands, *plan.required))
    return tuple(n for n in nodes if n in plan.required)


def _is_call(plan: Plan, node: g.Node) -> bool:
    return isinstance(node, g.Extern) or node in plan.contracts


def _operands(plan: Plan, node: g.Node) -> tuple[library.Operand, ...]:
    if isinstance(node, g.Extern):
        return plan.externs[node.call].operands
    return plan.contracts[node].operands


@dataclass(slots=True)
class _Assembly:
    """Names, buffers and steps of one program."""

    plan: Plan
    fusion: Fusion
    arch: Arch

    def program(self, refused: tuple[WhyNot, ...]) -> Program:
        stored = self._stored()
        names = Names(self.plan.graph)
        placements: dict[g.Node, Placement] = {}
        buffers: dict[str, Buffer] = {}
        for node in stored:
            buffer = self._buffer(node, names)
            buffers[buffer.name] = buffer
            placements[node] = Placement(buffer.name, self.plan.strides(node))
        steps = [s for u in self._order() for s in self._step(u, placements, buffers, names)]
        returns = tuple(self._returned(n, placements) for n in self.plan.graph.outputs)
        inputs = {s.name: placements[s.node].buffer for s in self.plan.graph.inputs}
        updates = tuple(
            (inputs[m.target], self._strided(m.value, placements))
            for m in self.plan.graph.mutations
        )
        used = _used_buffers(steps, returns, updates)
        live = tuple(b for b in buffers.values() if b.name in used or b.role == "input")
        return Program(live, tuple(steps), returns, updates, (*refused, *self.fusion.refusals()))

    def _stored(self) -> tuple[g.Node, ...]:
        """Sinks that need a buffer: inputs, call results, and what leaves its kernel."""
        outside = {returned_view(self.plan, n).base for n in self.plan.graph.outputs}
        outside |= {m.value for m in self.plan.graph.mutations}
        for n in self.plan.required:
            if _is_call(self.plan, n):
                outside |= {o.base for o in _operands(self.plan, n)}
        owner = self.fusion.owner
        for number, cluster in self.fusion.clusters.items():
            for m in cluster.members:
                outside |= {r.sink for _, r in m.lowered.refs if owner.get(r.sink) != number}
        order = g.topological(self.plan.required)
        keep = [n for n in order if n in outside or isinstance(n, g.Input)]
        calls = [
            n
            for n in order
            if _is_call(self.plan, n) and n not in outside and n in self.plan.required
        ]
        return tuple(dict.fromkeys((*(s.node for s in self.plan.graph.inputs), *keep, *calls)))

    def _buffer(self, node: g.Node, names: Names) -> Buffer:
        name = names.buffer(node)
        role = (
            node.role
            if isinstance(node, g.Input)
            else ("output" if node in self.plan.graph.outputs else "temp")
        )
        return Buffer(name, node.shape, node.dtype, self.plan.strides(node), role)

    def _order(self) -> list[int]:
        """Units in an order that respects their dependencies, earliest founded first."""
        done: dict[int, None] = {}
        for unit in self.fusion.depends:
            stack = [(unit, False)]
            while stack:
                u, ready = stack.pop()
                if u in done:
                    continue
                if ready:
                    done[u] = None
                else:
                    stack.append((u, True))
                    stack.extend(
                        (d, False) for d in sorted(self.fusion.depends[u], reverse=True) if d != u
                    )
        return list(done)

    def _step(
        self,
        unit: int,
        placements: dict[g.Node, Placement],
        buffers: dict[str, Buffer],
        names: Names,
    ) -> list[Step]:
        if unit in self.fusion.clusters:
            return self._kernel(self.fusion.clusters[unit], placements, buffers, names)
        nodes = [n for n, u in self.fusion.owner.items() if u == unit]
        return [self._call(nodes, placements, names)]

    def _kernel(
        self,
        cluster: Cluster,
        placements: Mapping[g.Node, Placement],
        buffers: Mapping[str, Buffer],
        names: Names,
    ) -> list[Step]:
        stored = {m.sink: placements[m.sink] for m in cluster.members if m.sink in placements}
        if not stored:
            return []
        kernel: Kernel = build_kernel(
            cluster, names, placements, stored, buffers, self.arch, self.plan.graph.origins
        )
        return [kernel]

    def _call(
        self, nodes: list[g.Node], placements: Mapping[g.Node, Placement], names: Names
    ) -> LibraryCall:
        first = nodes[0]
        origin = self.plan.graph.origins.get(first)
        origins = (origin.text,) if origin is not None and origin.text else ()

        def bind(arg: library.PlanArg) -> object:
            return library.bound(arg, lambda n: (placements[n].buffer, placements[n].offset))

        if isinstance(first, g.Extern):
            planned = self.plan.externs[first.call]
            by_position = {n.position: placements[n].buffer for n in nodes}  # type: ignore[attr-defined]
            outs = tuple(by_position.get(k, "") for k in range(len(first.call.results)))
            return LibraryCall(
                names.call(first),
                f"torch.ops.{first.call.op}",
                tuple(bind(a) for a in planned.args),  # type: ignore[arg-type]
                tuple((k, bind(a)) for k, a in planned.kwargs),  # type: ignore[arg-type]
                outs,
                extern=True,
                covers=(first.call.op,),
                origins=origins,
            )
        planned = self.plan.contracts[first]
        return LibraryCall(
            names.call(first),
            planned.function,
            tuple(bind(a) for a in planned.args),  # type: ignore[arg-type]
            tuple((k, bind(a)) for k, a in planned.kwargs),  # type: ignore[arg-type]
            (placements[first].buffer,),
            planned.flops,
            covers=planned.covers,
            origins=origins,
        )

    def _returned(self, node: g.Node, placements: Mapping[g.Node, Placement]) -> Strided:
        found = returned_view(self.plan, node)
        place = placements[found.base]
        return Strided(place.buffer, found.shape, found.strides, place.offset + found.offset)

    def _strided(self, node: g.Node, placements: Mapping[g.Node, Placement]) -> Strided:
        place = placements[node]
        return Strided(place.buffer, node.shape, place.strides, place.offset)


def _used_buffers(
    steps: list[Step], returns: tuple[Strided, ...], updates: tuple[tuple[str, Strided], ...]
) -> set[str]:
    used = {r.buffer for r in returns} | {name for t, s in updates for name in (t, s.buffer)}
    for step in steps:
        used.update((*step.reads, *step.writes))
    return used
