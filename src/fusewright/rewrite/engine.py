"""The rewriting engine: applies rules bottom-up until the measure cannot fall. It knows no rule.

The engine keeps the exact measure of the current graph, sharing included, while it works: use
counts say which nodes die with a replaced one. A rule's candidate is put in place, its new nodes
are simplified in turn, and only then is the measure compared: rules may therefore open a way that
another rule completes. A candidate that does not pay is undone. As the measure is a tuple of
naturals that falls with every accepted candidate, rewriting ends.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fusewright.context import Context
from fusewright.ir import graph as g
from fusewright.ir.graph import Graph, Mutation, Node, Origin
from fusewright.target.cost import (
    Cost,
    Reading,
    node_bytes,
    node_cost,
    node_flops,
    reading_work,
    readings,
)

from .rule import CLASSES, Fact, Numerics, Rewrite, Rule

# How many unproven candidates may be open inside one another.
DEPTH = 12
# A backstop far above what any program needs: passes over the whole graph.
PASSES = 50

Table = Mapping[type[Node], tuple[Rule, ...]]


def rule_table(rules: Sequence[Rule], numerics: Numerics) -> Table:
    """The rules of class `numerics` and stricter, by the class of the node they look at."""
    allowed = CLASSES[: CLASSES.index(numerics) + 1]
    kinds = dict.fromkeys(kind for rule in rules for kind in rule.roots)
    return {k: tuple(r for r in rules if k in r.roots and r.numerics in allowed) for k in kinds}


def run_rules(
    graph: Graph, rules: Sequence[Rule], context: Context
) -> tuple[Graph, tuple[Rewrite, ...]]:
    """`graph` rewritten by `rules` to a fixpoint, and the certificate of every rewrite in order."""
    table = rule_table(rules, context.options.numerics)
    records: list[Rewrite] = []
    known = _Known()
    for _ in range(PASSES):
        work = _Work(graph, table, known)
        graph, found = work.run()
        records += found
        if not found:
            break
    return graph, tuple(records)


@dataclass(frozen=True, slots=True)
class _Mark:
    """A point to which the work can be undone."""

    journal: int
    records: int
    cost: Cost
    totals: tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Applied:
    """A rule's candidate put in the place of a node; `totals` are the FLOPs and bytes before."""

    rule: Rule
    node: Node
    candidate: Node
    origin: Origin | None
    totals: tuple[int, int]

    def certificate(self, after: tuple[int, int]) -> Rewrite:
        """What was done, with what changed until the totals were `after`."""
        return Rewrite(
            rule=self.rule.name,
            numerics=self.rule.numerics,
            where=_place(self.origin),
            identity=self.rule.identity,
            precondition=self.rule.precondition,
            flops_delta=after[0] - self.totals[0],
            bytes_delta=after[1] - self.totals[1],
            before=describe(self.node),
            after=describe(self.candidate),
        )


@dataclass(slots=True)
class _Known:
    """What is true of nodes in whatever graph: analyses, costs, candidates that need no users."""

    facts: dict[Callable[..., Any], dict[Node, Any]] = field(default_factory=dict)
    costs: dict[Node, tuple[Cost, int, int]] = field(default_factory=dict)
    candidates: dict[Node, dict[str, Node | None]] = field(default_factory=dict)


@dataclass(slots=True)
class _Work:
    """One bottom-up pass over a graph.

    `counts` holds the use count of each live node, `readers` how many reductions share a reading;
    `forward` maps replaced nodes to what replaced them. `journal` has the old entries of all three,
    to undo a candidate.
    """

    graph: Graph
    table: Table
    known: _Known
    counts: dict[Node, int] = field(default_factory=dict)
    forward: dict[Node, Node] = field(default_factory=dict)
    origins: dict[Node, Origin] = field(default_factory=dict)
    refused: dict[Node, set[str]] = field(default_factory=dict)
    readers: dict[Reading, int] = field(default_factory=dict)
    journal: list[tuple[dict[Any, Any], Node | Reading, int | Node | None]] = field(
        default_factory=list
    )
    records: list[_Applied] = field(default_factory=list)
    cost: Cost = field(default_factory=Cost)
    totals: tuple[int, int] = (0, 0)
    depth: int = 0
    asked_for_users: bool = False
    readers_of: dict[Node, list[Node | None]] | None = None

    def run(self) -> tuple[Graph, list[Rewrite]]:
        """The graph after the pass, and what was rewritten."""
        self.origins.update(self.graph.origins)
        for root in self.graph.roots:
            self._acquire(root, 1)
        self._sweep(self.graph.nodes())
        return self._result(), self._certificates()

    def _certificates(self) -> list[Rewrite]:
        """The records with their deltas: what changed until the next one, merged nodes included."""
        ends = [*(r.totals for r in self.records), self.totals][1:]
        return [r.certificate(end) for r, end in zip(self.records, ends, strict=True)]

    def uses(self, node: Node) -> int:
        """See rule.Env."""
        self.asked_for_users = True
        return self.counts.get(node, 0)

    def users(self, node: Node) -> tuple[Node | None, ...]:
        """See rule.Env. Every change discards the table: few rules ask, and rarely."""
        self.asked_for_users = True
        if self.readers_of is None:
            self.readers_of = {}
            for n in self.counts:
                for o in dict.fromkeys(map(self._resolve, n.operands)):
                    self.readers_of.setdefault(o, []).append(n)
            for root in dict.fromkeys(map(self._resolve, self.graph.roots)):
                self.readers_of.setdefault(root, []).append(None)
        return tuple(self.readers_of.get(node, ()))

    def fact(self, analysis: Callable[[Node, Sequence[Fact]], Fact], node: Node) -> Fact:
        """See rule.Env. Iterative: graphs are deep."""
        known = self.known.facts.setdefault(analysis, {})
        stack = [node]
        while stack:
            n = stack[-1]
            missing = [o for o in n.operands if o not in known] if n not in known else []
            if missing:
                stack.extend(missing)
                continue
            if n not in known:
                known[n] = analysis(n, [known[o] for o in n.operands])
            stack.pop()
        return known[node]

    def _result(self) -> Graph:
        outputs = tuple(self._resolve(o) for o in self.graph.outputs)
        mutations = tuple(Mutation(m.target, self._resolve(m.value)) for m in self.graph.mutations)
        live = g.topological((*outputs, *(m.value for m in mutations)))
        origins = {n: self.origins[n] for n in live if n in self.origins}
        return replace(self.graph, outputs=outputs, mutations=mutations, origins=origins)

    # ------------------------------------------------------------------------------ bookkeeping

    def _resolve(self, node: Node) -> Node:
        while (after := self.forward.get(node)) is not None:
            node = after
        return node

    def _set_count(self, table: dict[Any, int], key: Node | Reading, count: int) -> None:
        self.journal.append((table, key, table.get(key)))
        self.readers_of = None
        if count:
            table[key] = count
        else:
            del table[key]

    def _account(self, node: Node, sign: int) -> None:
        costs = self.known.costs
        if node not in costs:
            costs[node] = (node_cost(node), node_flops(node), node_bytes(node))
        cost, flops, size = costs[node]
        self.cost = self.cost + cost if sign > 0 else self.cost - cost
        for reading in readings(node):
            before = self.readers.get(reading, 0)
            self._set_count(self.readers, reading, before + sign)
            if not before or not before + sign:
                self.cost = self.cost + Cost(sign * reading_work(reading))
        self.totals = (self.totals[0] + sign * flops, self.totals[1] + sign * size)

    def _acquire(self, node: Node, count: int) -> None:
        """Count `count` more uses of `node`; a node that was not live brings its operands in."""
        stack = [(node, count)]
        while stack:
            n, k = stack.pop()
            n = self._resolve(n)
            if n not in self.counts:
                self._account(n, 1)
                stack.extend((o, 1) for o in n.operands)
            self._set_count(self.counts, n, self.counts.get(n, 0) + k)

    def _release(self, node: Node, count: int) -> None:
        """Undo `count` uses; a node without users dies and releases its operands."""
        stack = [(node, count)]
        while stack:
            n, k = stack.pop()
            n = self._resolve(n)
            self._set_count(self.counts, n, self.counts[n] - k)
            if n not in self.counts:
                self._account(n, -1)
                stack.extend((o, 1) for o in n.operands)

    def _replace(self, old: Node, new: Node) -> None:
        """`new` takes over all uses of the live node `old`."""
        new = self._resolve(new)
        if old == new:
            return
        count = self.counts[old]
        self._acquire(new, count)
        self._release(old, count)
        self.journal.append((self.forward, old, self.forward.get(old)))
        self.readers_of = None
        self.forward[old] = new

    def _mark(self) -> _Mark:
        return _Mark(len(self.journal), len(self.records), self.cost, self.totals)

    def _undo(self, mark: _Mark) -> None:
        self.readers_of = None
        while len(self.journal) > mark.journal:
            table, node, before = self.journal.pop()
            if before is None:
                del table[node]
            else:
                table[node] = before
        del self.records[mark.records :]
        self.cost, self.totals = mark.cost, mark.totals

    # --------------------------------------------------------------------------------- rewriting

    def _sweep(self, nodes: Iterable[Node]) -> None:
        """Bring `nodes` (operands first) up to date with what was replaced, and simplify each."""
        for node in nodes:
            if node not in self.counts:
                continue
            operands = tuple(self._resolve(o) for o in node.operands)
            current = node if operands == node.operands else node.with_operands(operands)
            self._inherit(node, (current,))
            self._replace(node, current)
            self._simplify(self._resolve(current))

    def _simplify(self, node: Node) -> None:
        """Apply rules at `node` until none pays."""
        while node in self.counts and (after := self._step(node)) is not None:
            node = after

    def _step(self, node: Node) -> Node | None:
        known = self.known.candidates.setdefault(node, {})
        refused = self.refused.setdefault(node, set())
        for rule in self.table.get(type(node), ()):
            if rule.name in refused:
                continue
            candidate = self._candidate(rule, node, known)
            if candidate is None or candidate == node:
                continue
            if self._try(rule, node, candidate):
                return self._resolve(node)
            refused.add(rule.name)
        return None

    def _candidate(self, rule: Rule, node: Node, known: dict[str, Node | None]) -> Node | None:
        """What `rule` makes of `node`; found once, unless it depends on who uses the node."""
        if rule.name in known:
            return known[rule.name]
        self.asked_for_users = False
        found = rule.apply(node, self)
        if not self.asked_for_users:
            known[rule.name] = found
        return found

    def _try(self, rule: Rule, node: Node, candidate: Node) -> bool:
        """Put `candidate` in the place of `node` and keep it if the measure falls."""
        mark = self._mark()
        fresh = self._fresh(candidate)
        self._inherit(node, fresh)
        self._replace(node, candidate)
        self.records.append(_Applied(rule, node, candidate, self.origins.get(node), mark.totals))
        if self.depth < DEPTH:
            self.depth += 1
            self._sweep(fresh)
            self.depth -= 1
        if self.cost < mark.cost:
            return True
        self._undo(mark)
        return False

    def _fresh(self, root: Node) -> tuple[Node, ...]:
        """The nodes below `root` that are not part of the graph yet, operands first."""
        done: dict[Node, None] = {}
        stack = [(root, False)]
        while stack:
            node, ready = stack.pop()
            node = self._resolve(node)
            if node in done or node in self.counts:
                continue
            if ready:
                done[node] = None
            else:
                stack.append((node, True))
                stack.extend((o, False) for o in reversed(node.operands))
        return tuple(done)

    def _inherit(self, old: Node, fresh: Iterable[Node]) -> None:
        origin = self.origins.get(old)
        if origin is not None:
            for node in fresh:
                self.origins.setdefault(node, origin)


def _place(origin: Origin | None) -> str:
    if origin is None:
        return ""
    line = f"line {origin.line}" if origin.line else ""
    return ", ".join(part for part in (origin.module, line, origin.text.strip()) if part)


def describe(node: Node, depth: int = 2) -> str:
    """`node` and the operations directly below it, as one line."""
    if isinstance(node, g.Input):
        return node.name
    if isinstance(node, g.Const):
        return f"{node.value!r}"
    shape = "×".join(str(n) for n in node.shape) or "scalar"
    if not depth or not node.operands:
        return f"{node.kind}[{shape}]"
    return f"{node.kind}[{shape}]({', '.join(describe(o, depth - 1) for o in node.operands)})"
