"""The steps of a compiled program as rows of a table: what each computes, from where, its cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from fusewright.ir import graph as g
from fusewright.ir.kernel import Kernel, LibraryCall, Step
from fusewright.pipeline import Compilation
from fusewright.target.program_cost import step_bytes, step_flops

from .figures import floor_seconds


@dataclass(frozen=True, slots=True)
class StepRow:
    """One step. `floor` in seconds, `moved` in bytes, `sources` are lines of the user's code."""

    kind: Literal["kernel", "library", "extern"]
    name: str
    how: str
    computes: str
    sources: tuple[str, ...]
    flops: int
    moved: int
    floor: float


def step_rows(c: Compilation) -> tuple[StepRow, ...]:
    """The program's steps in the order they run."""
    return tuple(_row(c, step) for step in c.program.steps)


def _row(c: Compilation, step: Step) -> StepRow:
    flops, moved = step_flops(step), step_bytes(step, c.program)
    if isinstance(step, Kernel):
        kind, name, how = "kernel", step.name, step.anchor.replace("_", " ")
    else:
        kind, how = ("extern" if step.extern else "library"), _call_text(step)
        name = step.function.removeprefix("torch.ops.").removesuffix(".default")
    floor = floor_seconds(step, flops, moved, c.arch, c.program)
    sources = user_lines(step.origins, c.graph)
    return StepRow(kind, name, how, covers(step.covers), sources, flops, moved, floor)


def _call_text(call: LibraryCall) -> str:
    """Whose code runs there."""
    return "ATen's, as it is" if call.extern else "library call"


def user_lines(texts: Sequence[str], graph: g.Graph) -> tuple[str, ...]:
    """Source lines with their numbers: `line 25: x = torch.sum(x, dim=1)`."""
    numbers: dict[str, dict[int, None]] = {}
    for origin in graph.origins.values():
        numbers.setdefault(origin.text.strip(), {})[origin.line] = None
    return tuple(_numbered(sorted(numbers.get(t.strip(), ())), t) for t in texts)


def _numbered(lines: Sequence[int], text: str) -> str:
    """The text alone where its line is not known."""
    known = [str(n) for n in lines if n]
    if not known:
        return text.strip()
    return f"line{'s' if len(known) > 1 else ''} {', '.join(known)}: {text.strip()}"


def covers(names: Sequence[str]) -> str:
    """`sum[16] (2 times), maximum[4,16]`: the operations a step covers."""
    short = [n.removeprefix("reduce_").removeprefix("aten.").replace(", ", ",") for n in names]
    counted = ((n, short.count(n)) for n in dict.fromkeys(short))
    return ", ".join(n if k == 1 else f"{n} ({k} times)" for n, k in counted)
