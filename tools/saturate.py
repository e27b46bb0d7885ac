"""A second opinion on the engine: bounded equality saturation over the same rules.

    PYTHONPATH=src python tools/saturate.py --programs 200 [--seed 0] [--rounds 4]

The engine is greedy: it keeps a step only if the measure falls. Here nothing is thrown away. Equal
nodes form classes; every rule is applied to every node, and to the node with other members of its
operands' classes, for a number of rounds; the cheapest member of each class is then put together.
Programs are random graphs, whose optimum nobody knows. Those that the engine leaves more than a
twentieth above the extracted graph's work are printed; the exit status is 1 if there is any.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from fusewright.context import Context
from fusewright.ir import graph as g
from fusewright.ir.text import graph_text
from fusewright.rewrite import RULES, rewrite
from fusewright.rewrite.contract import matmul
from fusewright.rewrite.samples import Draw, graph_of
from fusewright.target.cost import graph_measure, measure

# Above the extracted graph's work by less than this factor is as good as found.
SLACK = 1.05
# Bounds of one saturation: nodes, and members of a class that operands are tried with.
NODES, MEMBERS = 1500, 3
SHAPE = (48, 64)


class Classes:
    """Nodes in classes of equal ones (union-find), and what a rule may ask (see rule.Env)."""

    def __init__(self) -> None:
        self.parent: dict[g.Node, g.Node] = {}
        self.members: dict[g.Node, dict[g.Node, None]] = {}
        self.facts: dict[tuple[Any, g.Node], Any] = {}

    def find(self, node: g.Node) -> g.Node:
        while self.parent[node] != node:
            node = self.parent[node]
        return node

    def add(self, root: g.Node) -> None:
        for n in g.topological((root,)):
            if n not in self.parent:
                self.parent[n], self.members[n] = n, {n: None}

    def union(self, a: g.Node, b: g.Node) -> None:
        first, second = self.find(a), self.find(b)
        if first != second:
            self.parent[second] = first
            self.members[first] |= self.members.pop(second)

    def uses(self, node: g.Node) -> int:
        """As `users`."""
        return 0

    def users(self, node: g.Node) -> tuple[g.Node | None, ...]:
        """None are named: the extraction decides what is worth having twice."""
        return ()

    def fact(self, analysis: Callable[..., Any], node: g.Node) -> Any:
        """See rule.Env."""
        for n in g.topological((node,)):
            if (analysis, n) not in self.facts:
                below = [self.facts[analysis, o] for o in n.operands]
                self.facts[analysis, n] = analysis(n, below)
        return self.facts[analysis, node]


def saturated(root: g.Node, rounds: int) -> Classes:
    """The classes of `root` and everything found equal to it or to parts of it."""
    classes, tried = Classes(), set[g.Node]()
    classes.add(root)
    for _ in range(rounds):
        for node in [n for n in classes.parent if n not in tried]:
            if len(classes.parent) > NODES:
                return classes
            tried.add(node)
            for found in (*_rewritten(node, classes), *_variants(node, classes)):
                classes.add(found)
                classes.union(node, found)
    return classes


def _rewritten(node: g.Node, classes: Classes) -> list[g.Node]:
    applicable = (r for r in RULES if isinstance(node, r.roots))
    found = (r.apply(node, classes) for r in applicable)
    return [n for n in found if n is not None and n != node]


def _variants(node: g.Node, classes: Classes) -> list[g.Node]:
    """The node with one operand replaced by another, cheap member of its class."""
    out = []
    for k, operand in enumerate(node.operands):
        others = classes.members[classes.find(operand)]
        cheap = sorted(others, key=lambda n: graph_measure((n,)))[:MEMBERS]
        out += [
            node.with_operands((*node.operands[:k], other, *node.operands[k + 1 :]))
            for other in cheap
            if other != operand
        ]
    return out


def extracted(root: g.Node, classes: Classes) -> g.Node:
    """The cheapest graph for `root`, its parts chosen class by class until none improves."""
    best: dict[g.Node, g.Node] = {}
    for _ in range(len(classes.parent)):
        changed = False
        for n in list(classes.parent):
            home = classes.find(n)
            parts = [best.get(classes.find(o), o) for o in n.operands]
            node = n.with_operands(tuple(parts)) if n.operands else n
            if home not in best or _work(node) < _work(best[home]):
                best[home], changed = node, True
        if not changed:
            break
    return best[classes.find(root)]


def _work(node: g.Node) -> Any:
    return measure(g.topological((node,)))


# --------------------------------------------------------------------------------- random programs


def program(draw: Draw) -> g.Node:
    """Five to nine random steps from a matrix; rows of a result are sometimes summed."""
    x = draw.tensor(SHAPE)
    seen = [x]
    for _ in range(draw.extent(5, 9)):
        x = draw.pick(STEPS)(x, draw)
        if draw.chance():
            x = g.binary(draw.pick(("add", "sub", "mul")), x, draw.pick(seen))
        seen.append(x)
    return g.reduce(draw.pick(("sum", "max")), x, (1,)) if draw.chance() else x


def _product(x: g.Node, draw: Draw) -> g.Node:
    return matmul(x, draw.tensor((SHAPE[1], SHAPE[1])))


def _scaled(x: g.Node, draw: Draw) -> g.Node:
    return g.binary(draw.pick(("mul", "div")), x, draw.like(draw.above(), x))


def _by_row(x: g.Node, draw: Draw) -> g.Node:
    return g.binary(draw.pick(("add", "sub", "mul")), x, draw.row(x.shape, (draw.pick((0, 1)),)))


def _function(x: g.Node, draw: Draw) -> g.Node:
    return g.unary(draw.pick(("tanh", "sigmoid", "neg", "abs", "exp")), x)


def _clamped(x: g.Node, draw: Draw) -> g.Node:
    return g.binary(draw.pick(("maximum", "minimum")), x, draw.like(draw.number(), x))


def _centred(x: g.Node, draw: Draw) -> g.Node:
    mean = g.binary("div", g.reduce("sum", x, (1,)), draw.like(64.0, g.reduce("sum", x, (1,))))
    return g.binary("sub", x, g.insert_expanded(mean, (1,), x.shape))


STEPS = (_product, _scaled, _by_row, _function, _clamped, _centred)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the programs and reports; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--programs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=4)
    chosen = parser.parse_args(arguments)
    above, below, start = 0, 0, time.monotonic()
    for seed in range(chosen.seed, chosen.seed + chosen.programs):
        root = program(Draw(Random(seed)))
        engine, _ = rewrite(graph_of(root), Context())
        other = extracted(root, saturated(root, chosen.rounds))
        ours, theirs = graph_measure(engine.roots).work, graph_measure((other,)).work
        below += theirs > SLACK * ours
        if ours > SLACK * theirs:
            above += 1
            print(f"seed {seed}: work {ours}, saturation finds {theirs}")
            print(graph_text(engine), graph_text(graph_of(other)), sep="\n", flush=True)
    print(f"{chosen.programs} programs: the engine above in {above}, below in {below}")
    print(f"{time.monotonic() - start:.0f} s", file=sys.stderr)
    return int(bool(above))


if __name__ == "__main__":
    sys.exit(main())
