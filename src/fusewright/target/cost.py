"""What a graph costs, from the IR alone: float operations, bytes, and the engine's measure.

Device numbers (peak rates, launch times) live in `arch`; nothing here depends on a device. `Cost`
is the measure that every accepted rewrite must lower, and so the argument that rewriting ends.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir.scalar import OPS
from fusewright.ir.windowed import as_library_form

# Float operations in the time one byte moves to or from memory: 20 on an H100 in float32, 10 to 16
# on server CPUs. Only the order of magnitude matters: it weighs algebra that trades one for the
# other.
FLOPS_PER_BYTE = 16
# Elements that a view repeats come from a cache, so many times faster than from memory.
CACHE_SPEED = 8
# Time of an operation in quarters of a float32 contraction's: a pointwise one cannot be half of a
# multiply-add, a 16-bit contraction runs on tensor cores.
POINTWISE_WEIGHT, CONTRACT_WEIGHT, HALF_CONTRACT_WEIGHT, BYTE_WEIGHT = 8, 4, 1, 4 * FLOPS_PER_BYTE
# Nodes above a scan among which it is looked for.
NEAR = 64
# A contraction that is neither a matrix product nor a convolution runs as a loop nest, whose
# operands come from the first-level cache again for every multiply-add.
NEST_WEIGHT = 16 * CONTRACT_WEIGHT


def node_flops(node: g.Node) -> int:
    """Float operations to compute `node` from its operands; a transcendental counts about 10.

    Points of a contraction that a divisibility condition makes zero (the phases of a transposed
    convolution) are not counted: no implementation computes them.
    """
    match node:
        case g.Unary() | g.Binary():
            return OPS[node.op].cost * node.size
        case g.Where():
            return node.size
        case g.Reduce() | g.ArgReduce() | g.Scan():
            return node.x.size
        case g.Contract():
            return int(node.flops * density((*node.a_valid, *node.b_valid)))
        case _:
            return 0


def density(valid: ix.Conds) -> float:
    """The share of points that conditions of the form `x mod m == 0` admit."""
    divisors = {c.x: c.x.divisor for c in valid if c.kind == "eq" and isinstance(c.x, ix.Mod)}
    return 1.0 / prod(divisors.values())


def read_bytes(x: g.Node) -> int:
    """Bytes a consumer reads for operand `x`: a view costs what it looks at, reuse a little."""
    if isinstance(x, g.Const | g.Iota):
        return 0
    if isinstance(x, g.View):
        once = min(x.nbytes, 0 if isinstance(x.x, g.Const) else _reach(x))
        return once + max(x.nbytes - _reach(x), 0) // CACHE_SPEED
    return x.nbytes


def _reach(v: g.View) -> int:
    """Bytes of the smallest box of the source that holds everything the view reads."""
    widths = (min(e.hi, n - 1) - max(e.lo, 0) + 1 for e, n in zip(v.index, v.x.shape, strict=True))
    return prod(max(w, 0) for w in widths) * v.dtype.bytes


def node_bytes(node: g.Node) -> int:
    """Bytes `node` moves when it is computed alone: distinct operands once, and its result.

    Inputs, constants and views move nothing.
    """
    if isinstance(node, g.Input | g.Const | g.Iota | g.View):
        return 0
    return sum(read_bytes(x) for x in dict.fromkeys(node.operands)) + node.nbytes


def is_pointwise(node: g.Node) -> bool:
    """Whether `node` computes each element from the same element of its operands."""
    return isinstance(node, g.Unary | g.Binary | g.Where | g.Cast)


def reaches_scan(node: g.Node) -> bool:
    """Whether `node` is a scan, or pointwise work or a plain view over one not far below."""
    seen: dict[g.Node, None] = {}
    stack = [node]
    while stack and len(seen) < NEAR:
        x = stack.pop()
        if isinstance(x, g.Scan):
            return True
        if x not in seen and (is_pointwise(x) or (isinstance(x, g.View) and not x.valid)):
            stack.extend(x.operands)
        seen[x] = None
    return False


def copies_scan(node: g.View) -> bool:
    """Whether `node` pads or flips what a scan gives, in a pass over memory after the scan's."""
    in_place = node.shape == node.x.shape and node.index == node.axes
    flips = any(c < 0 for e in node.index for c, _ in ix.parts(e)[1])
    return (bool(node.valid) or flips) and not in_place and reaches_scan(node.x)


@dataclass(frozen=True, slots=True, order=True)
class Cost:
    """The measure, compared field by field.

    `work`: weighted float operations plus memory traffic in the same unit, where pointwise nodes
    and views are taken to be fused into what they feed. `misplaced`: views above a pointwise node
    that could be below it, and reorderings below a reduction that could be above it (views next to
    the leaves let pointwise chains fuse, and equal reductions look equal). `nodes`: operations
    other than constants. `length`: terms of all index expressions.
    """

    work: int = 0
    misplaced: int = 0
    nodes: int = 0
    length: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.work + other.work,
            self.misplaced + other.misplaced,
            self.nodes + other.nodes,
            self.length + other.length,
        )

    @property
    def rest(self) -> tuple[int, int, int]:
        """All fields but the work."""
        return (self.misplaced, self.nodes, self.length)

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(
            self.work - other.work,
            self.misplaced - other.misplaced,
            self.nodes - other.nodes,
            self.length - other.length,
        )


def measure(nodes: Iterable[g.Node]) -> Cost:
    """The engine's measure of `nodes`, each computed once."""
    total, read = Cost(), dict[Reading, None]()
    for n in nodes:
        total = total + node_cost(n)
        read.update(dict.fromkeys(readings(n)))
    return Cost(total.work + sum(map(reading_work, read)), *total.rest)


Reading = tuple[g.Node, tuple[int, ...]]


def readings(node: g.Node) -> tuple[Reading, ...]:
    """What `node` reads together with others: scans, reductions over the same axes, of a tensor."""
    if isinstance(node, g.Reduce):
        return ((node.x, node.axes_reduced),)
    return ((node.x, ()),) if isinstance(node, g.Scan) else ()


def reading_work(reading: Reading) -> int:
    """The work of all readers of one reading that is done once: memory, pointwise operands."""
    x, axes = reading
    # A pointwise operand is computed again in the kernel of every reduction that reads it.
    again = POINTWISE_WEIGHT * node_flops(x) if axes and is_pointwise(x) else 0
    return BYTE_WEIGHT * read_bytes(x) + again


def node_cost(node: g.Node) -> Cost:
    """What `node` itself adds to the measure of a graph, its readings aside."""
    if isinstance(node, g.Input | g.Const):
        return Cost()
    if isinstance(node, g.View):
        length = _length((*node.index, *(c.x for c in node.valid)))
        moved = read_bytes(node) + node.nbytes if copies_scan(node) else 0
        return Cost(BYTE_WEIGHT * moved, int(is_late(node)), 1, length)
    if is_pointwise(node):
        return Cost(POINTWISE_WEIGHT * node_flops(node), 0, 1, 0)
    work = _weight(node) * node_flops(node)
    if isinstance(node, g.Reduce):
        return Cost(work + BYTE_WEIGHT * node.nbytes, int(is_early(node)), 1, 0)
    if isinstance(node, g.Scan):  # an exclusive one does not read the last element
        unread = node.nbytes // max(node.shape[node.axis], 1) if node.exclusive else 0
        return Cost(work + BYTE_WEIGHT * (node.nbytes - unread), 0, 1, 0)
    work += BYTE_WEIGHT * node_bytes(node)
    # A pointwise operand is computed again in the kernel that reads it.
    work += sum(POINTWISE_WEIGHT * node_flops(x) for x in node.operands if is_pointwise(x))
    if isinstance(node, g.Contract):
        # A library call reads its operands from memory: what is computed there is written first.
        work += BYTE_WEIGHT * sum(x.nbytes for x in node.operands if is_pointwise(x))
    return Cost(work, 0, 1, _length(_indices(node)))


def _weight(node: g.Node) -> int:
    if not isinstance(node, g.Contract):
        return POINTWISE_WEIGHT
    if as_library_form(node) is None:
        return NEST_WEIGHT
    return HALF_CONTRACT_WEIGHT if node.a.dtype.bits <= 16 else CONTRACT_WEIGHT


def _indices(node: g.Node) -> Iterable[ix.Index]:
    if isinstance(node, g.Contract):
        return (*node.a_index, *node.b_index, *(c.x for c in (*node.a_valid, *node.b_valid)))
    return node.index if isinstance(node, g.Gather) else ()


def is_late(node: g.View) -> bool:
    """Whether `node` is a view of a pointwise result that could as well be below it."""
    return is_pointwise(node.x) and node.size <= node.x.size and not node.valid


def is_early(node: g.Node) -> bool:
    """Whether `node` reduces a reordering of a tensor that it could reduce itself."""
    x = node.x if isinstance(node, g.Reduce) else None
    return isinstance(x, g.View) and not x.valid and x.size == x.x.size


def _length(xs: Iterable[ix.Index]) -> int:
    return sum(1 for _ in ix.walk(*xs))


@dataclass(frozen=True, slots=True)
class GraphCost:
    """Float operations and bytes of a whole graph, every node computed once and by itself."""

    flops: int
    bytes: int
    nodes: int


def graph_cost(roots: Iterable[g.Node]) -> GraphCost:
    """Totals over all nodes reachable from `roots`, as an unfused run would pay them."""
    nodes = g.topological(roots)
    return GraphCost(
        sum(node_flops(n) for n in nodes),
        sum(node_bytes(n) for n in nodes),
        sum(1 for n in nodes if not isinstance(n, g.Input | g.Const)),
    )


def graph_measure(roots: Iterable[g.Node]) -> Cost:
    """The engine's measure of a whole graph."""
    return measure(g.topological(roots))
