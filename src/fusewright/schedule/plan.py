"""Which nodes need memory of their own and where it is: sinks, placements, library calls.

The plan is made from the roots down: outputs, mutations, operands of library calls and sources of
gathers must be in memory; every reduction is a sink of some kernel. Which sinks share a kernel is
decided by `fuse`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir import offsets
from fusewright.ir.index import Index, Var
from fusewright.target.arch import Arch

from .convolutions import scales
from .fuse import has_name
from .layout import channels_last
from .library import CallPlan, Operand, PlanArg, StridedView, plan_contract, plan_extern, tensors_in

# A chain of pointwise operations longer than this is cut: compilers slow down on huge expressions.
LONGEST_CHAIN = 128


@dataclass(frozen=True, slots=True)
class ExternPlan:
    """A foreign op before buffers have names."""

    call: g.Call
    args: tuple[PlanArg, ...]
    kwargs: tuple[tuple[str, PlanArg], ...]

    @property
    def operands(self) -> tuple[Operand, ...]:
        return tensors_in((self.args, tuple(v for _, v in self.kwargs)))


@dataclass(slots=True)
class Plan:
    """What must be in memory. `strides` gives each sink's element strides by its own axes."""

    graph: g.Graph
    users: dict[g.Node, tuple[g.Node, ...]]
    layouts: dict[g.Node, tuple[int, ...]]
    contracts: dict[g.Node, CallPlan] = field(default_factory=dict)
    externs: dict[g.Call, ExternPlan] = field(default_factory=dict)
    required: dict[g.Node, None] = field(default_factory=dict)
    loops: dict[g.Contract, None] = field(default_factory=dict)
    channels_last: frozenset[g.Contract] = frozenset()

    def strides(self, sink: g.Node) -> tuple[int, ...]:
        """Element strides of a sink in memory."""
        if isinstance(sink, g.Extern):
            return sink.call.results[sink.position][2]
        if (planned := self.contracts.get(sink)) is not None:
            return planned.strides
        return self.layouts.get(sink, offsets.row_major(sink.shape))

    def view(self, node: g.Node, coords: tuple[Index, ...]) -> StridedView | None:
        """`node[coords]` as a strided view of the deepest node that allows one."""
        best: StridedView | None = None
        variables = ix.variables(*coords)
        while True:
            offset = offsets.flatten(coords, self.strides(node))
            strides = {v: ix.coefficient(offset, v) for v in variables}
            if all(s is not None and s >= 0 for s in strides.values()):
                start = offset - ix.add(ix.const(0), *(v * (s or 0) for v, s in strides.items()))
                constant = ix.constant_value(start)
                if constant is not None:
                    best = (node, {v: s or 0 for v, s in strides.items()}, constant)
            if not isinstance(node, g.View) or node.valid or node in self.layouts:
                return best
            mapping = dict(zip(node.axes, coords, strict=True))
            coords = tuple(ix.substitute(e, mapping) for e in node.index)
            node = node.x

    def require(self, node: g.Node) -> None:
        """`node` must be in memory, and so must what its own computation reads from memory."""
        stack = [node]
        while stack:
            n = stack.pop()
            if n in self.required:
                continue
            self.required[n] = None
            stack.extend(self._needs(n))

    def _needs(self, n: g.Node) -> list[g.Node]:
        """Nodes that must be in memory for `n` to be computed."""
        if isinstance(n, g.Extern):
            operands = self._extern(n.call).operands
        elif (planned := self.contracts.get(n)) is not None:
            operands = planned.operands
        else:
            return self.below(n)
        for operand in operands:
            _fold_bias(self, operand.base)
        return [o.base for o in operands]

    def below(self, n: g.Node) -> list[g.Node]:
        """Sinks below a node that a kernel computes: reductions, results of calls, sources."""
        found: list[g.Node] = []
        stack, seen = list(n.operands), set()
        if isinstance(n, g.Gather):
            found.append(n.x)
        while stack:
            node = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            if self.has_value(node):
                found.append(node)
                continue
            if isinstance(node, g.Gather):
                found.append(node.x)
            stack.extend(node.operands)
        return found

    def has_value(self, node: g.Node) -> bool:
        """Whether a node is a sink by its nature, whoever uses it."""
        special = isinstance(node, g.Extern | g.Contract | g.Input)
        return special or has_name(node) or node in self.contracts

    def _extern(self, call: g.Call) -> ExternPlan:
        if call not in self.externs:
            args, kwargs = plan_extern(call, self.view)
            self.externs[call] = ExternPlan(call, args, tuple(kwargs.items()))
        return self.externs[call]


def make_plan(graph: g.Graph, arch: Arch) -> Plan:
    """The plan of a graph whose low-reuse contractions are reductions already (`prepare`)."""
    users = g.users(graph.roots)
    plan = Plan(graph, users, _layouts(graph), channels_last=channels_last(graph, users, arch))
    for node in graph.nodes():
        if isinstance(node, g.Contract):
            planned = plan_contract(node, None, plan.view, node in plan.channels_last)
            if planned is None:
                plan.loops[node] = None
            else:
                plan.contracts[node] = planned
    if not plan.loops:
        for _ in range(2):  # the first pass finds the biases that the library adds
            plan.required.clear()
            for root in _memory_roots(plan):
                plan.require(root)
        for node in scales(graph, users):
            plan.require(node)
        _cut_long_chains(plan)
    return plan


def _cut_long_chains(plan: Plan) -> None:
    depth: dict[g.Node, int] = {}
    for n in g.topological(plan.required):
        below = (depth[o] for o in n.operands if o not in plan.required)
        depth[n] = 0 if plan.has_value(n) else 1 + max(below, default=0)
        if depth[n] >= LONGEST_CHAIN:
            plan.required[n] = None


def spilled(plan: Plan, members: dict[int, tuple[g.Node, ...]]) -> tuple[g.Node, ...]:
    """Pointwise nodes that several kernels need and that are cheaper to store than to recompute.

    `members` are the sinks of each kernel. Storing costs one write and k - 1 reads of the node;
    recomputing costs k - 1 more reads of everything below it.
    """
    kernels: dict[g.Node, set[int]] = {}
    for number, sinks in members.items():
        for n in _inline_nodes(plan, sinks):
            kernels.setdefault(n, set()).add(number)
    out = []
    for n, users in kernels.items():
        k = len(users)
        inside_larger = any(kernels.get(u) == users for u in plan.users.get(n, ()))
        if k < 2 or inside_larger or isinstance(n, g.View | g.Cast | g.Const | g.Iota):
            continue
        below = sum(s.nbytes for s in plan.below(n))
        if below * (k - 1) > n.nbytes * k:
            out.append(n)
    return tuple(out)


def _inline_nodes(plan: Plan, sinks: tuple[g.Node, ...]) -> tuple[g.Node, ...]:
    seen: dict[g.Node, None] = {}
    stack = [o for s in sinks for o in s.operands]
    while stack:
        n = stack.pop()
        if n not in seen and n not in plan.required:
            seen[n] = None
            stack.extend(n.operands)
    return tuple(seen)


def _layouts(graph: g.Graph) -> dict[g.Node, tuple[int, ...]]:
    """Strides fixed from outside: inputs as captured, outputs as eager returns them."""
    out: dict[g.Node, tuple[int, ...]] = {s.node: s.strides for s in graph.inputs}
    for node, strides in zip(graph.outputs, graph.output_strides, strict=True):
        if is_dense(node.shape, strides) and not isinstance(node, g.Input | g.Extern | g.Contract):
            out.setdefault(node, strides)
    return out


def is_dense(shape: g.Shape, strides: Iterable[int]) -> bool:
    """Whether the strides enumerate the elements without holes or overlap, in some axis order."""
    step = 1
    for s, n in sorted((s, n) for s, n in zip(strides, shape, strict=True) if n > 1):
        if s != step:
            return False
        step *= n
    return True


def _memory_roots(plan: Plan) -> list[g.Node]:
    """Nodes that must be in memory because of what follows the forward pass."""
    roots = []
    for node in plan.graph.outputs:
        found = returned_view(plan, node)
        _fold_bias(plan, found.base)
        roots.append(found.base)
    for m in plan.graph.mutations:
        roots.append(m.value)
    return roots


def returned_view(plan: Plan, node: g.Node) -> Operand:
    """An output as memory to return: a view of an input or a library result where eager's strides
    allow it, or a part of a scan or a reduction, else a buffer of its own."""
    wanted = plan.graph.output_strides[plan.graph.outputs.index(node)]
    layout = plan.layouts.pop(node, None) if isinstance(node, g.View) else None
    found = plan.view(node, node.axes)
    if layout is not None:
        plan.layouts[node] = layout
    if found is not None:
        base, strides, offset = found
        mine = tuple(
            strides.get(v, w) if isinstance(v, Var) else w
            for v, w in zip(node.axes, wanted, strict=True)
        )
        part = has_name(base) and node.size < base.size
        resident = isinstance(base, g.Input | g.Extern) or base in plan.contracts or part
        if resident and mine == wanted:
            return Operand(base, node.shape, mine, offset)
    return Operand(node, node.shape, plan.strides(node))


def _fold_bias(plan: Plan, node: g.Node) -> None:
    """Let the library add a bias when the sum goes to memory as it is: `addmm` has it for free."""
    inner = node.x if isinstance(node, g.Cast) else node
    if not (isinstance(inner, g.Binary) and inner.op == "add") or node in plan.contracts:
        return
    for product, bias in ((inner.a, inner.b), (inner.b, inner.a)):
        c = product.x if isinstance(product, g.Cast) else product
        plain = bias.x if isinstance(bias, g.Cast) else bias
        alone = isinstance(c, g.Contract) and len(plan.users[c]) == len(plan.users[product]) == 1
        if alone and c.dtype == node.dtype == plain.dtype and c not in plan.graph.roots:
            last = c in plan.channels_last
            planned = plan_contract(c, plain, plan.view, last)  # type: ignore[arg-type]
            if planned is not None and _same_layout(plan, node, planned):
                plan.contracts[node] = planned
                return


def _same_layout(plan: Plan, node: g.Node, planned: CallPlan) -> bool:
    wanted = plan.layouts.get(node)
    return wanted is None or all(
        n == 1 or a == b for n, a, b in zip(node.shape, wanted, planned.strides, strict=True)
    )
