"""Writes docs/algebra.md from the rules themselves: identity, class, precondition, an example each.

    PYTHONPATH=src python tools/algebra_docs.py           write the file
    PYTHONPATH=src python tools/algebra_docs.py --check   exit 1 if the committed file differs

The example of a rule is the shortest of the first instances that its own generator draws.
"""

import argparse
import sys
from collections.abc import Iterator
from importlib import import_module
from itertools import groupby
from pathlib import Path
from random import Random

from fusewright.context import Context
from fusewright.ir import graph as g
from fusewright.ir.text import equations, type_text
from fusewright.options import Options
from fusewright.rewrite import RULES, Rule, run_rules
from fusewright.rewrite.rule import CLASSES
from fusewright.rewrite.samples import Draw, graph_of

PAGE = Path(__file__).resolve().parents[1] / "docs" / "algebra.md"
# How many instances of each rule are considered for the example.
DRAWS = 10

INTRODUCTION = """\
# The rules of algebra

Written by `tools/algebra_docs.py` from the rules in `src/fusewright/rewrite`; do not edit. {count}
rules. How they are searched, and why the search ends, is in `docs/design.md`; what the measure
counts is in `src/fusewright/target/cost.py`. A rule is applied only where the measure of the whole
graph falls, the consequences of the step included.

The class says what a rule may change: `exact` gives the same bits up to the order of operations,
`reassociate` the same real number rounded in another order, `finite` the same for finite values.
`--numerics` admits a class and the stricter ones. No rule looks at the values of weights or inputs.

Each example is an instance drawn by the rule's own generator, before and after the rule is applied
(and what it opens the way for, where the rule alone would not pay).
"""


def main() -> int:
    """Writes or checks the page; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    page = text()
    if parser.parse_args().check:
        current = PAGE.read_text(encoding="utf-8") == page
        print("current" if current else "out of date: run tools/algebra_docs.py")
        return int(not current)
    PAGE.write_text(page, encoding="utf-8")
    return 0


def text() -> str:
    """The whole page."""
    parts = [INTRODUCTION.format(count=len(RULES)), *_index()]
    for module, rules in groupby(RULES, key=lambda r: r.apply.__module__):
        parts.append(_family(module))
        parts += [_section(rule) for rule in rules]
    return "\n".join(parts)


def _index() -> Iterator[str]:
    yield "| class | rules |\n| --- | --- |"
    for name in CLASSES:
        links = ", ".join(f"[{r.name}](#{r.name})" for r in RULES if r.numerics == name)
        yield f"| `{name}` | {links} |"
    yield ""


def _family(module: str) -> str:
    first = (import_module(module).__doc__ or "").splitlines()[0]
    return f"## {module.rpartition('.')[2]}\n\n{first}\n"


def _section(rule: Rule) -> str:
    before, after = example(rule)
    condition = f"Precondition: {rule.precondition}. " if rule.precondition else ""
    lines = [f"### {rule.name}", "", f"**{rule.identity}**", ""]
    lines += [f"{condition}Class: `{rule.numerics}`.", "", "```"]
    declared = [_declared(before), ""] if before.inputs else []
    lines += [*declared, *_lines(before), "  ⟶", *_lines(after), "```", ""]
    return "\n".join(lines)


def example(rule: Rule) -> tuple[g.Graph, g.Graph]:
    """The shortest of a few instances of `rule`, before and after."""
    drawn = (graph_of(rule.instances(Draw(Random(seed)))) for seed in range(DRAWS))
    pairs = [(graph, _after(rule, graph)) for graph in drawn]
    return min(pairs, key=lambda pair: sum(len(t) for graph in pair for t in _lines(graph)))


def _after(rule: Rule, graph: g.Graph) -> g.Graph:
    alone, records = run_rules(graph, (rule,), Context(Options()))
    return alone if records else run_rules(graph, RULES, Context(Options()))[0]


def _declared(graph: g.Graph) -> str:
    return ", ".join(f"{s.name}: {type_text(s.node)}" for s in graph.inputs)


def _lines(graph: g.Graph) -> list[str]:
    return [e.text for e in equations(graph)]


if __name__ == "__main__":
    sys.exit(main())
