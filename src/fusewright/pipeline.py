"""The stages of a compilation, in order; each is checked, timed and kept in the context's log.

Nothing is computed here. Command lines are `cli`'s, the public functions `api`'s.
"""

import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from .capture import capture
from .capture.interface import interface
from .context import Context
from .emit.ctext import shortened
from .emit.emission import Emission
from .emit.module import module_text
from .emit.segment import Segment, has_large_results, units
from .emit.unit import translation_unit
from .errors import CaptureError, OutputError
from .ir.check import check_graph, check_program
from .ir.graph import Graph, Leaf, Tree, Verbatim
from .ir.interface import Interface
from .ir.kernel import Kernel, Program
from .ir.program_text import program_text
from .ir.text import graph_text
from .options import Options
from .problem import Problem
from .rewrite import Rewrite, rewrite
from .run.device import detected_target, moved
from .run.files import write_atomically
from .run.load import import_text
from .run.tune import (
    Runnable,
    Timer,
    add_to_table,
    default_table,
    measured,
    present_device,
    read_table,
    time_on_gpu,
)
from .schedule import alternatives, schedule, without_skeletons
from .schedule.names import Names
from .target.arch import Arch, arch
from .target.tuning import Tuning
from .version import VERSION

__all__ = [
    "STAGES",
    "Compilation",
    "Rewrite",
    "compile_problem",
    "import_text",
    "input_buffers",
    "require_place",
    "write_output",
]

R = TypeVar("R")
STAGES = ("captured", "interface", "rewritten", "scheduled", "kernels", "emitted")


@dataclass(frozen=True, slots=True, eq=False)
class Compilation:
    """Everything one compilation made. `graph` is as captured, `rewritten` what was scheduled.

    `kernels` is the C++ or CUDA text, `module_text` the emitted file.
    """

    problem: Problem
    context: Context
    arch: Arch
    graph: Graph
    interface: Interface
    rewritten: Graph
    rewrites: tuple[Rewrite, ...]
    program: Program
    kernels: str
    module_text: str

    @property
    def title(self) -> str:
        return problem_title(self.problem)

    @property
    def given(self) -> dict[str, Any]:
        """What the emitted file finds in the user's own: the classes that forward returns."""
        names = [kind.partition(".")[0] for kind in result_classes(self.graph.result)]
        return {name: self.problem.namespace[name] for name in names}

    @property
    def warnings(self) -> tuple[str, ...]:
        return (*self.problem.warnings, *self.context.warnings)


def compile_problem(
    problem: Problem,
    options: Options,
    *,
    source: str | None = None,
    progress: Callable[[str], None] | None = None,
    tuner: "Tuner | None" = None,
) -> Compilation:
    """The emitted file for `problem`, and everything on the way.

    `source` replaces the problem's own text in the file. `progress` is told each stage's name as it
    starts. `tuner` measures where the options ask for that, by default on the device here. Raises
    CaptureError for what cannot be captured, UsageError for an unknown target.
    """
    run = _Stages(Context(options), progress)
    target = arch(detected_target() if options.target == "auto" else options.target)
    problem = moved(problem) if target.kind == "cuda" else problem

    graph = run("captured", graph_text, lambda: check_graph(capture(problem, run.context)))
    _check_result_classes(problem, graph)
    facts = run("interface", repr, lambda: interface(problem, graph))
    rewritten, rewrites = run("rewritten", _rewrite_text, lambda: rewrite(graph, run.context))
    check_graph(rewritten)
    context = run.context
    if options.tune or options.tuned:
        found = run("tuned", str, lambda: (tuner or Tuner()).tuning(rewritten, context, target))
        context = replace(context, tuning=found)
    program = run(
        "scheduled", program_text, lambda: check_program(schedule(rewritten, context, target))
    )
    large = options.binding == "raw" and has_large_results(program)
    kernels = run("kernels", str, lambda: translation_unit(program, target, large))
    emission = Emission(
        title=problem_title(problem),
        source=_source_of(problem) if source is None else source,
        graph=rewritten,
        program=program,
        buffers=input_buffers(rewritten),
        interface=facts,
        arch=target,
        kernels=kernels,
        rewrites=header_rewrites(rewrites),
        options=options,
        version=VERSION,
    )
    text = run("emitted", str, lambda: module_text(emission))
    return Compilation(
        problem, run.context, target, graph, facts, rewritten, rewrites, program, kernels, text
    )


@dataclass(frozen=True, slots=True)
class Tuner:
    """Where times of products come from: the user's table, a timer for what it lacks, and the name
    of the device (None: that of this machine, if it has one for the target)."""

    table: Path | None = None
    timer: Timer = time_on_gpu
    device: str | None = None

    def tuning(self, graph: Graph, context: Context, target: Arch) -> Tuning:
        """What the table has, with what was lacking measured and added where that is wanted."""
        device = self.device or present_device(target.kind)
        if device is None:
            context.warn(f"no device for {target.name} is here: products are chosen by the model")
            return Tuning()
        table = self.table or default_table()
        known = read_table(table, device, VERSION)
        if not context.options.tune:
            return known
        found = alternatives(
            without_skeletons(graph, target, context.options), target, context.options
        )
        wanted = (
            (a.key, {n: _runnable(p, target) for n, p in a.programs.items()}) for a in found
        )
        tuning = measured(known, wanted, self.timer)
        if tuning.choices != known.choices:
            add_to_table(table, tuning, VERSION)
        return tuning


def _runnable(program: Program, target: Arch) -> Runnable:
    """The program with its kernels' text, a part of which the printed entry points are."""
    steps = tuple(
        (u.entry, tuple(b.name for b in u.buffers)) if isinstance(u, Segment) else u
        for u in units(program)
    )
    has_kernels = any(isinstance(s, Kernel) for s in program.steps)
    text = translation_unit(program, target) if has_kernels else ""
    return Runnable(program, text, target.gencode.partition("code=")[2], steps)


@dataclass(frozen=True, slots=True)
class _Stages:
    """Runs stages: tells progress, keeps time and result, prints them when debugging is on."""

    context: Context
    progress: Callable[[str], None] | None

    def __call__(self, name: str, show: Callable[[Any], str], stage: Callable[[], R]) -> R:
        if self.progress is not None:
            self.progress(name)
        result = self.context.timed(name, stage)
        entry = replace(self.context.log.entries[-1], show=show)
        self.context.log.entries[-1] = entry
        if self.context.options.debug:
            print(f"[fusewright] {name}: {entry.seconds:.3f} s", file=sys.stderr)
        if self.context.options.debug > 1:
            print(entry.text(), file=sys.stderr)
        return result


def result_classes(result: Tree | Leaf | Verbatim) -> tuple[str, ...]:
    """Names of the classes in the structure that forward returns, as its file calls them."""
    if not isinstance(result, Tree):
        return ()
    builtin = result.kind in ("tuple", "list", "dict") or result.kind.startswith("torch.")
    own = () if builtin else (result.kind,)
    inner = (name for child in result.children for name in result_classes(child))
    return tuple(dict.fromkeys((*own, *inner)))


def _check_result_classes(problem: Problem, graph: Graph) -> None:
    for name in result_classes(graph.result):
        if name.partition(".")[0] not in problem.namespace:
            raise CaptureError(
                f"forward returns a {name}, which the model's file does not know by that name: "
                "import or define the class at its top level"
            )


def input_buffers(graph: Graph) -> dict[str, str]:
    """The program's buffer for each input of the graph, by the inputs' names."""
    names = Names(graph)
    return {s.name: names.buffer(s.node) for s in graph.inputs}


def rewrite_line(r: Rewrite) -> str:
    """One application of a rule in one line, for headers."""
    where = f" at {shortened(r.where)}" if r.where else ""
    return f"{r.rule} [{r.numerics}]{where}: {r.identity}"


def header_rewrites(rewrites: Sequence[Rewrite]) -> tuple[str, ...]:
    """Each rewrite in a line; those that only move views in a line per rule, behind them."""
    layout = Counter((r.rule, r.identity) for r in rewrites if _only_layout(r))
    lines = dict.fromkeys(rewrite_line(r) for r in rewrites if not _only_layout(r))
    uses = {name: "once" if n == 1 else f"{n} times" for name, n in layout.items()}
    return (*lines, *(f"{name[0]}, layout only, {n}: {name[1]}" for name, n in uses.items()))


def _only_layout(r: Rewrite) -> bool:
    return r.numerics == "exact" and not r.flops_delta and not r.bytes_delta


def _rewrite_text(result: tuple[Graph, tuple[Rewrite, ...]]) -> str:
    graph, rewrites = result
    return "\n".join([*map(rewrite_line, rewrites), "", graph_text(graph)])


def problem_title(problem: Problem) -> str:
    """The problem file's stem; the class's name for a live module."""
    if problem.path is None or problem.original is not None:
        return type(problem.module).__name__
    return problem.path.stem


def _source_of(problem: Problem) -> str:
    if problem.source is None:
        raise OutputError("a module without a source file needs fusewright.optimize")
    return problem.source


def write_output(text: str, path: str | Path, problem: Problem) -> Path:
    """Write the emitted file, all at once or not at all; returns its path.

    Raises OutputError when the path is the problem's own file or cannot be written.
    """
    target = Path(path)
    if problem.path is not None:
        require_place(target, problem.path)
    try:
        write_atomically(text, target, 0o666 & ~_umask())
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
    return target


def require_place(output: Path, problem: Path) -> None:
    """Raises OutputError where no file can be, or the problem is. Worth asking before a compile."""
    if output.resolve() == problem.resolve():
        raise OutputError(f"{output}: the output would overwrite the problem file; give another -o")
    if output.is_dir():
        raise OutputError(f"{output}: is a folder; give the name of a file")
    if not output.parent.is_dir():
        raise OutputError(f"{output}: cannot be written: {output.parent} is no folder")


def _umask() -> int:
    """The process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
