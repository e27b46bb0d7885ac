"""Whether every stage of a compilation agrees with eager on one problem file.

Stages, in the order of the path of data: the captured graph, the rewritten graph, the program of
each target, and the CPU kernels built and called through the emitted file.
"""

import copy
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from capture.harness import rebuilt
from fusewright.context import Context
from fusewright.emit.unit import translation_unit
from fusewright.errors import CaptureError
from fusewright.ir.check import check_program
from fusewright.ir.graph import Graph
from fusewright.options import Options
from fusewright.pipeline import Compilation, compile_problem, import_text, input_buffers
from fusewright.problem import load_problem
from fusewright.run.build import compile_cpp, default_cache_dir
from fusewright.run.interpret import interpret_graph, interpret_program
from fusewright.run.verify.oracle import OracleUnavailable
from fusewright.schedule import schedule
from fusewright.target.arch import arch

from .truth import Truth, Values, called, held, named, truth_of

# What the emitted file compiles with, less optimisation: the build is most of a check's time.
FLAGS = ("-O1", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-w")
CUDA = "cuda:sm_90a"


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A stage whose values are not eager's, or that failed; `detail` says how."""

    stage: str
    detail: str

    def __str__(self) -> str:
        return f"{self.stage}: {self.detail}"


# torch's fake tensors do not always have eager's strides, which capture takes from them.
STRIDES = "strides"


class Unusable(Exception):
    """The model is no test: eager or torch.export refuses it, or there is no float64 oracle."""


def disagreement(path: Path, build: bool) -> Disagreement | None:
    """The first stage that does not agree with eager. Raises Unusable."""
    live = load_problem(path, fake=False)
    try:
        called(copy.deepcopy(live.module), copy.deepcopy(live.inputs))
    except Exception as error:
        raise Unusable(f"eager: {error}") from error
    try:
        compilation = compile_problem(load_problem(path, fake=True), Options(target="cpu"))
    except CaptureError as error:
        raise Unusable(f"capture: {error}") from error
    except Exception as error:
        return Disagreement("compile", _summary(error))
    try:
        truth = truth_of(compilation.graph, live.module, live.inputs)
    except OracleUnavailable as error:
        raise Unusable(str(error)) from error
    return _first(compilation, live.module, live.inputs, truth, build)


def _first(
    c: Compilation, module: nn.Module, inputs: list[Any], truth: Truth, build: bool
) -> Disagreement | None:
    stages = [("captured", _graph_values), ("rewritten", _graph_values), ("cpu", _program_values)]
    stages += [(CUDA, _program_values), *([("build", _built_values)] if build else [])]
    for stage, values in stages:
        try:
            wrong = truth.findings(values(c, stage, module, copy.deepcopy(inputs)))
        except Exception as error:
            return Disagreement(stage, _summary(error))
        if wrong:
            return Disagreement(stage, "; ".join(wrong))
    wrong = _stride_findings(c.graph, truth)
    return Disagreement(STRIDES, "; ".join(wrong)) if wrong else None


def _summary(error: BaseException) -> str:
    frames = []
    trace = error.__traceback__
    while trace is not None:
        frames.append(f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"{type(error).__name__}: {str(error)[:600]} ({' '.join(frames[-4:])})"


def _graph_values(c: Compilation, stage: str, module: nn.Module, inputs: list[Any]) -> Values:
    graph = c.graph if stage == "captured" else c.rewritten
    torch.manual_seed(0)
    result = interpret_graph(graph, held(graph, module, inputs))
    return _by_name(graph, result.outputs, result.mutations)


def _by_name(graph: Graph, outputs: list[Tensor], mutations: Values) -> Values:
    leaves = [x for x in pytree.tree_leaves(rebuilt(graph.result, outputs)) if x is not None]
    return {f"output[{k}]": x for k, x in enumerate(leaves)} | dict(mutations)


def _stride_findings(graph: Graph, truth: Truth) -> list[str]:
    """Strides that the graph promises and eager does not have, on axes where they count."""
    leaves = [x for x in pytree.tree_leaves(truth.outputs) if isinstance(x, Tensor)]
    strides = [_Strides(s) for s in graph.output_strides]
    promised = pytree.tree_leaves(rebuilt(graph.result, strides))  # type: ignore[arg-type]
    wrong = []
    for k, (p, x) in enumerate(zip(promised, leaves, strict=True)):
        kept = [a for a, n in enumerate(x.shape) if n > 1]
        if x.numel() and any(p.strides[a] != x.stride(a) for a in kept):
            wrong.append(f"output[{k}] has strides {p.strides}, eager's are {x.stride()}")
    return wrong


@dataclass(frozen=True, slots=True)
class _Strides:
    """A leaf in the place of an output."""

    strides: tuple[int, ...]


def _program_values(c: Compilation, stage: str, module: nn.Module, inputs: list[Any]) -> Values:
    """By the program of a target; that of another target than the compilation's is made here."""
    program = c.program
    if stage == CUDA:
        target = arch(CUDA)
        program = check_program(schedule(c.rewritten, Context(Options(target=CUDA)), target))
        translation_unit(program, target)
    buffers = input_buffers(c.rewritten)
    tensors = held(c.rewritten, module, inputs)
    torch.manual_seed(0)
    result = interpret_program(program, {buffers[n]: t for n, t in tensors.items()})
    back = {buffer: name for name, buffer in buffers.items()}
    return _by_name(c.rewritten, result.outputs, {back[b]: t for b, t in result.updates.items()})


def _built_values(c: Compilation, stage: str, module: nn.Module, inputs: list[Any]) -> Values:
    """By the emitted file's ModelNew, whose kernels are compiled here with less optimisation."""
    emitted = import_text(c.module_text, c.title, {})
    setattr(emitted, "cpp_extension", _Extension)  # noqa: B010
    new = copy.deepcopy(module)
    new.__class__ = emitted.ModelNew
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        outputs = called(new, inputs)
    found = named(c.graph, outputs, new, inputs)
    return found


class _Extension:
    """Stands for torch.utils.cpp_extension in an emitted file: builds with FLAGS, in the cache."""

    @staticmethod
    def get_default_build_root() -> str:
        return str(default_cache_dir() / "fuzz")

    @staticmethod
    def load_inline(
        name: str, cpp_sources: list[str], build_directory: str, no_implicit_headers: bool, **_: Any
    ) -> None:
        library = Path(build_directory) / f"{name}.so"
        if not library.exists():  # a loaded library must not be written over
            shutil.copyfile(compile_cpp(cpp_sources[0], flags=FLAGS), library)
