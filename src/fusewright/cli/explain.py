"""A compilation told to a person, as a short proof: the model, each step, what follows, the cost.

Layout only: equations come from `ir.text`, figures from the report, certificates from `rewrite`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fusewright.ir import graph as g
from fusewright.ir.kernel import Kernel, WhyNot
from fusewright.ir.text import type_text
from fusewright.pipeline import Compilation
from fusewright.rewrite import Rewrite

from .equations import model_equations, wrapped
from .figures import delta, duration, product_rate, quantity
from .steps import StepRow, step_rows

INDENT = 2
# Lines of one equation.
LONGEST = 8
# More parameters or buffers than this are not listed one by one.
MANY = 8
# More refusals than FEW for one reason become one sentence, which names LISTED of them.
FEW, LISTED = 2, 6
ROLES = {"input": "argument", "param": "parameter", "buffer": "buffer", "constant": "constant"}
CLASSES = {
    "exact": "the same bits, up to the order of operations",
    "reassociate": "the same real number, rounded in another order",
    "finite": "the same for finite values; infinities and NaN may spread differently",
}


def render_explain(c: Compilation, report: Mapping[str, Any], width: int) -> RenderableType:
    """Everything there is to say about the compilation, for a page of `width` columns."""
    parts = [
        *headline(c, report),
        *_warnings(c.warnings),
        *_section("The model", _model(c.graph, width)),
        *_section("Rewriting", _proof(c, width)),
        *_section("The program", _program(c, width)),
        *_section("Not fused", _refusals(c.program.why_not, width)),
    ]
    return Group(*parts)


# ---------------------------------------------------------------------------------------- the head


def headline(c: Compilation, report: Mapping[str, Any]) -> list[RenderableType]:
    """What was compiled for what, and the gain in one sentence."""
    title = Text.assemble((c.title, "bold"), f" for {c.arch.name}")
    before, after, rows = report["reference"], report["optimized"], step_rows(c)
    gain = f"{_work(before)} op by op; {_work(after)} in {_counted(rows)}"
    if rows:
        least = duration(sum(row.floor for row in rows))
        gain += f", at least {least} at this target's rates"
    if len(rows) > 1:
        gain += f" and {len(rows)} launches of about {duration(c.arch.launch)}"
    gain += "."
    return [title, Text(gain)]


def _work(part: Mapping[str, Any]) -> str:
    return f"{quantity(part['flops'], 'FLOP')} and {quantity(part['bytes'], 'B')}"


def _counted(rows: Sequence[StepRow]) -> str:
    """`2 kernels and 1 library call`."""
    names = {"kernel": "kernel", "library": "library call", "extern": "ATen call without a kernel"}
    counts = {kind: sum(row.kind == kind for row in rows) for kind in names}
    told = [plural(n, names[kind]) for kind, n in counts.items() if n]
    return " and ".join([", ".join(told[:-1]), told[-1]] if len(told) > 1 else told or ["no step"])


def plural(count: int, noun: str) -> str:
    """`1 kernel`, `2 kernels`, `2 calls without a kernel`."""
    head, _, tail = noun.partition(" without")
    more = f"{head}s" if count != 1 else head
    return f"{count} {more}{' without' + tail if tail else ''}"


def _warnings(warnings: Iterable[str]) -> list[RenderableType]:
    return [Text(f"\nWarning: {w}", style="bold yellow") for w in warnings]


def _section(title: str, body: Iterable[RenderableType]) -> list[RenderableType]:
    found = list(body)
    return [Text(f"\n{title}", style="bold cyan"), *found] if found else []


# --------------------------------------------------------------------------------------- equations


def _model(graph: g.Graph, width: int) -> Iterator[RenderableType]:
    """What comes from outside with its type, then the equations."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    for role in dict.fromkeys(s.node.role for s in graph.inputs):
        for row in _declared([s.node for s in graph.inputs if s.node.role == role]):
            grid.add_row(f"{' ' * INDENT}{row[0]}", Text(row[1]), Text(row[2], style="dim"))
    if graph.inputs:
        yield grid
        yield Text("")
    yield from equation_lines(graph, width)


def _declared(nodes: Sequence[g.Input]) -> list[tuple[str, str, str]]:
    """(name, type, role); many parameters or buffers are counted and not listed."""
    word = ROLES[nodes[0].role]
    if len(nodes) > MANY and nodes[0].role != "input":
        size = quantity(sum(n.nbytes for n in nodes), "B")
        return [(f"{len(nodes)} {word}s", size, f"{nodes[0].name} … {nodes[-1].name}")]
    return [(n.name, type_text(n), word) for n in nodes]


def equation_lines(graph: g.Graph, width: int) -> Iterator[Text]:
    """Each equation, with type and line at the right margin where it fits, else below."""
    for equation, about in model_equations(graph):
        lines = _shortened(wrapped(equation, width - INDENT))
        last = len(lines) - 1
        for k, line in enumerate(lines):
            text = Text(" " * INDENT + line)
            room = width - text.cell_len - len(about)
            if k == last and room >= 2:
                text.append(" " * room + about, style="dim")
            yield text
            if k == last and room < 2:
                yield Text(about.rjust(width), style="dim")


def _shortened(lines: list[str]) -> list[str]:
    """Nobody reads thirty lines of index arithmetic; `--stage` prints them for who must."""
    if len(lines) <= LONGEST:
        return lines
    rest = len(lines) - LONGEST + 1
    return [*lines[: LONGEST - 1], f"    … {rest} more lines, which --stage rewritten prints"]


# ------------------------------------------------------------------------------------------- proof


@dataclass(frozen=True, slots=True)
class Lemma:
    """One rule under one precondition, with every place where it was applied."""

    rule: str
    numerics: str
    identity: str
    precondition: str
    where: tuple[str, ...]
    flops_delta: int
    bytes_delta: int

    @property
    def only_layout(self) -> bool:
        """Whether it changes neither a value nor a cost: it moves views."""
        return self.numerics == "exact" and not self.flops_delta and not self.bytes_delta


def lemmas(rewrites: Sequence[Rewrite]) -> tuple[Lemma, ...]:
    """The certificates by rule, in the order of first use."""
    uses: dict[tuple[str, str, str, str], list[Rewrite]] = {}
    for r in rewrites:
        uses.setdefault((r.rule, r.numerics, r.identity, r.precondition), []).append(r)
    return tuple(
        Lemma(
            *key,
            tuple(r.where for r in found),
            sum(r.flops_delta for r in found),
            sum(r.bytes_delta for r in found),
        )
        for key, found in uses.items()
    )


def _proof(c: Compilation, width: int) -> Iterator[RenderableType]:
    found = lemmas(c.rewrites)
    steps = [x for x in found if not x.only_layout]
    layout = [x for x in found if x.only_layout]
    if not found:
        yield Text(f"{' ' * INDENT}No rule lowers the cost: the equations stand as they are.")
        return
    for number, step in enumerate(steps, 1):
        yield from _lemma_lines(number, step, width)
    yield from _layout_lines(layout, width, alone=not steps)
    if model_equations(c.graph) == model_equations(c.rewritten):
        yield Text("\n  The equations stand as they are. ∎")
    else:
        yield Text("\nTherefore", style="bold cyan")
        yield from equation_lines(c.rewritten, width)
        yield Text("∎".rjust(width))
    yield Text(_numerics_lines(found), style="dim")


def _lemma_lines(number: int, step: Lemma, width: int) -> Iterator[Text]:
    """The identity with its class and gain at the right, then where and why it holds."""
    mark = f"{number:>{INDENT + 1}}. "
    yield from _with_margin(mark, step.identity, lemma_gain(step), width)
    holds = f", as {step.precondition}" if step.precondition else ""
    reason = f"{place(step.where)}; {step.rule}{holds}"
    for line in wrapped(reason, width - len(mark), 0):
        yield Text(" " * len(mark) + line, style="dim")


def _layout_lines(found: Sequence[Lemma], width: int, *, alone: bool) -> Iterator[Text]:
    """Changes of layout: they cost nothing and change no value, so one line each."""
    if not found:
        return
    head = "Layout alone was simplified" if alone else "Beside these, layout was simplified"
    yield Text(f"{'' if alone else chr(10)}{' ' * INDENT}{head}, which changes no value:")
    for x in found:
        count = "once" if len(x.where) == 1 else f"{len(x.where)} times"
        for line in wrapped(f"– {x.identity}  ({x.rule}, {count})", width - INDENT, 2):
            yield Text(" " * INDENT + line, style="dim")


def _with_margin(mark: str, body: str, margin: str, width: int) -> Iterator[Text]:
    lines = wrapped(body, width - len(mark) - len(margin) - 2, 2) or [""]
    for k, line in enumerate(lines):
        text = Text(mark if k == 0 else " " * len(mark))
        text.append(line)
        if k == 0:
            text.append(" " * max(2, width - text.cell_len - len(margin)) + margin, style="green")
        yield text


def lemma_gain(x: Lemma) -> str:
    """`finite, −137 GFLOP, −134 MB`; nothing but the class where no cost changes."""
    parts = [x.numerics]
    parts += [delta(x.flops_delta, "FLOP")] if x.flops_delta else []
    parts += [delta(x.bytes_delta, "B")] if x.bytes_delta else []
    return ", ".join(parts)


_LINE = re.compile(r"\bline (\d+)")


def place(where: Sequence[str]) -> str:
    """`line 24, x = x / 2` for one place, `lines 29 (4 times), 33, 35` for several."""
    # An expression that goes on in the next line ends in a comma here.
    distinct = list(dict.fromkeys(w.rstrip(", ") for w in where if w))
    times = f" ({len(where)} times)" if len(where) > 1 else ""
    if not distinct:
        return f"in values made while rewriting{times}"
    if len(distinct) == 1:
        return distinct[0] + times
    numbers = [found[1] if (found := _LINE.search(w)) else w for w in where if w]
    if len(set(numbers)) == 1:
        return f"line {numbers[0]}{times}"
    counted = ((n, numbers.count(n)) for n in dict.fromkeys(numbers))
    return "lines " + ", ".join(n if k == 1 else f"{n} ({k} times)" for n, k in counted)


def _numerics_lines(found: Sequence[Lemma]) -> str:
    used = [name for name in CLASSES if any(x.numerics == name for x in found)]
    return "\n" + "\n".join(f"{' ' * INDENT}{name}: {CLASSES[name]}" for name in used)


# ----------------------------------------------------------------------------------------- program


def _program(c: Compilation, width: int) -> Iterator[RenderableType]:
    rows = step_rows(c)
    if not rows:
        yield Text(f"{' ' * INDENT}Nothing is computed: the outputs are inputs or views of them.")
        return
    yield from program_lines(rows, width, details=True)
    yield Text(
        f"{' ' * INDENT}Floors at {quantity(max(c.arch.copy_rate, c.arch.read_rate), 'B/s')} and "
        f"{quantity(c.arch.float_rate, 'FLOP/s')}{_product_rate(c)} ({c.arch.name}); launches "
        "are not counted.",
        style="dim",
    )


def _product_rate(c: Compilation) -> str:
    kernels = (s for s in c.program.steps if isinstance(s, Kernel))
    schemes = dict.fromkeys(k.scheme for k in kernels if k.scheme)
    rates = (f", {s} products at {quantity(product_rate(s, c.arch), 'FLOP/s')}" for s in schemes)
    return "".join(rates)


STYLES = {"kernel": "bold", "library": "bold magenta", "extern": "bold yellow"}
# Columns of FLOPs, bytes and floor.
FIGURES = (12, 9, 9)


def program_lines(rows: Sequence[StepRow], width: int, *, details: bool) -> Iterator[Text]:
    """The steps in the order they run, kernels and calls alike, and their sum.

    With `details` each is followed by what it computes and the user's lines it comes from.
    """
    yield _with_figures(Text(""), ("FLOP", "bytes", "floor"), width, "dim")
    for number, row in enumerate(rows, 1):
        head = Text.assemble(f"{number:>{INDENT + 1}}. ", (row.name, STYLES[row.kind]))
        head.append(f"  {row.how}", style="dim")
        yield _with_figures(head, _figures([row]), width)
        if details:
            for line in (*wrapped(row.computes, width - INDENT - 3, 2), *row.sources):
                text = Text(f"{' ' * (INDENT + 3)}{line}", style="dim", overflow="ellipsis")
                text.truncate(width, overflow="ellipsis")
                yield text
    if len(rows) > 1:
        yield _with_figures(Text(f"{' ' * (INDENT + 3)}in all", "dim"), _figures(rows), width)


def _figures(rows: Sequence[StepRow]) -> tuple[str, str, str]:
    """Sums of FLOPs, bytes and floors; the FLOPs of foreign calls are not known."""
    known = [row.flops for row in rows if row.kind != "extern"]
    flops = quantity(sum(known), "FLOP") if known else "–"
    moved, floor = sum(row.moved for row in rows), sum(row.floor for row in rows)
    return flops, quantity(moved, "B"), duration(floor)


def _with_figures(head: Text, figures: Sequence[str], width: int, style: str = "") -> Text:
    columns = "".join(f.rjust(n) for f, n in zip(figures, FIGURES, strict=True))
    head.truncate(width - len(columns) - 1, overflow="ellipsis", pad=True)
    return Text.assemble(head, " ", (columns, style))


# ---------------------------------------------------------------------------------------- refusals


def _refusals(why_not: Sequence[WhyNot], width: int) -> Iterator[RenderableType]:
    for text in refusal_sentences(why_not):
        for k, line in enumerate(wrapped(text, width - INDENT - 2, 0)):
            yield Text(f"{' ' * INDENT}{'– ' if k == 0 else '  '}{line}")


def refusal_sentences(why_not: Sequence[WhyNot]) -> Iterator[str]:
    """One sentence for each thing that stays apart; one for all where many share a reason."""
    for reason, subjects in refusals(why_not).items():
        if len(subjects) <= FEW:
            for subject, partners in subjects.items():
                apart = f" is not in the kernel of {_listed(partners)}" if partners else ""
                yield f"{subject}{apart}: {reason}."
            continue
        told = [
            f"{subject} (into {_listed(partners)})" if partners else subject
            for subject, partners in subjects.items()
        ]
        more = f"; and {len(told) - LISTED} more" if len(told) > LISTED else ""
        yield f"{reason}: {'; '.join(told[:LISTED])}{more}."


def refusals(why_not: Sequence[WhyNot]) -> dict[str, dict[str, tuple[str, ...]]]:
    """By reason, what stays apart and from whose kernels, each once."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for w in why_not:
        subject, _, partner = w.what.partition(" into the kernel of ")
        subjects = found.setdefault(w.reason, {})
        partners = subjects.get(readable(subject), ())
        new = (readable(partner),) if partner and readable(partner) not in partners else ()
        subjects[readable(subject)] = partners + new
    return found


def readable(name: str) -> str:
    """`reduce_sum[4, 8]` as `sum[4,8]`."""
    return name.removeprefix("reduce_").replace(", ", ",").replace("[]", "[scalar]")


def _listed(names: Sequence[str]) -> str:
    if len(names) > 3:
        return f"{', '.join(names[:2])} and {len(names) - 2} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
