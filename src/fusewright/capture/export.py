"""torch.export and its decompositions: the one place that knows their API and its versions.

The result is two programs with one calling convention: `written` keeps eager's operators (strides,
in-place writes), `functional` is free of mutation and speaks the operators that `table` lowers.
Shapes are static. What a program means is not decided here.
"""

import dataclasses
import io
import linecache
import logging
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from fusewright.context import Context
from fusewright.errors import CaptureError
from fusewright.problem import Problem

from .attributes import tensors_as_buffers
from .eager_strides import lay_out_as_eager
from .structure import Structure, watched
from .table import KEPT_CALLS, LOWERINGS
from .traced import traced


@dataclass(frozen=True, slots=True, eq=False)
class Exported:
    """The same forward pass as eager writes it and without mutation.

    Both return a flat tuple of tensors; `structure` is what forward returns, Leaf(k) the k-th.
    """

    written: ExportedProgram
    functional: ExportedProgram
    structure: Structure


def export(problem: Problem, context: Context) -> Exported:
    """Export the module in its current mode (a fresh nn.Module is in training mode).

    Plain attributes that forward assigns and that were no tensors are put back, with a warning: no
    file repeats that.
    Raises CaptureError with the user's line for what torch.export refuses: a branch on a tensor's
    value, an operator without a fake implementation, an exception in forward itself.
    """
    with _quiet(), problem.as_the_file_left_torch(), _refusals(problem):
        # On an error torch prints half a graph to stderr.
        with (
            tensors_as_buffers(problem.module),
            watched(problem.module) as watch,
            traced(),
            redirect_stderr(io.StringIO()),
        ):
            inputs = registered_inputs(problem)
            written = torch.export.export(problem.module, inputs, strict=False)
        _forget_constants(written)
        _convert_copies(written)
        functional = written.run_decompositions(decomposition_table())
        lay_out_as_eager(written)
    for name in watch.assigned:
        context.warn(f"forward assigns self.{name}: the new file leaves it as it is")
    for node in written.graph.nodes:
        if not node.users and _draws(node.target):
            context.warn(f"{node.target} draws random numbers that nothing uses: left out")
    return Exported(written, functional, watch.structure)


def _draws(target: Any) -> bool:
    tags = getattr(target, "tags", ())
    return torch.Tag.nondeterministic_seeded in tags


def registered_inputs(problem: Problem) -> tuple[Any, ...]:
    """The arguments of forward, their dataclasses known to torch and all their tensors fake.

    torch.export takes only dataclasses that its process-wide registry of containers knows.
    """
    for cls in dict.fromkeys(_dataclasses(problem.inputs)):
        if cls not in pytree.SUPPORTED_NODES:
            torch.export.register_dataclass(cls)
    mode = problem.fake_mode
    if mode is None:
        return tuple(problem.inputs)

    def faked(tensor: torch.Tensor) -> torch.Tensor:
        known = isinstance(tensor, FakeTensor)
        return tensor if known else mode.from_tensor(tensor, static_shapes=True)

    return tuple(pytree.tree_map_only(torch.Tensor, faked, list(problem.inputs)))


def _dataclasses(value: Any) -> Iterator[type]:
    """Classes of the dataclass instances in nested containers."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield type(value)
        yield from _dataclasses([getattr(value, f.name) for f in dataclasses.fields(value)])
    elif isinstance(value, list | tuple):
        for v in value:
            yield from _dataclasses(v)
    elif isinstance(value, Mapping):
        yield from _dataclasses(list(value.values()))


def decomposition_table() -> dict[Any, Callable[..., Any]]:
    """torch's core-ATen decompositions without the operators that stay whole here.

    Random operators stay whole: their decompositions draw other numbers (bernoulli from rand).
    """
    table = _default_table()
    for op in [op for op in table if _draws(op)]:
        table.pop(op, None)
    for name in (*LOWERINGS, *KEPT_CALLS):
        op = resolve_operator(name)
        if op is not None:
            table.pop(op, None)
    return table


def _default_table() -> dict[Any, Callable[..., Any]]:
    """`default_decompositions` came with torch 2.6; before, composite ops always decompose."""
    if hasattr(torch.export, "default_decompositions"):
        return torch.export.default_decompositions()
    from torch._decomp import core_aten_decompositions

    return dict(core_aten_decompositions())


def resolve_operator(name: str) -> Any:
    """The overload `aten.<packet>.<overload>`, None where this torch has no such operator."""
    library, packet, overload = name.split(".")
    return getattr(getattr(getattr(torch.ops, library), packet, None), overload, None)


def _forget_constants(program: ExportedProgram) -> None:
    """A fake tensor must not pose as another one's known value.

    torch notes the module's tensors as the values of their placeholders; where those are fake too,
    constant propagation would run a real kernel on them (torch 2.13 crashes).
    """
    for node in program.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, FakeTensor) and isinstance(value.constant, FakeTensor):
            value.constant = None


def _convert_copies(program: ExportedProgram) -> None:
    """Sources of copies get the dtype and shape of what is written, by operators of their own.

    torch takes a buffer that is copied to for the source of the copy, whatever that is (2.13).
    """
    aten, graph = torch.ops.aten, program.graph
    for node in list(graph.nodes):
        if node.target is not aten.copy_.default:
            continue
        into, source = (arg.meta["val"] for arg in node.args[:2])
        if into.dtype == source.dtype and into.shape == source.shape:
            continue
        with graph.inserting_before(node):
            kind = {"dtype": into.dtype}
            cast = graph.call_function(aten._to_copy.default, (node.args[1],), kind)
            whole = graph.call_function(aten.expand.default, (cast, list(into.shape)))
        for made in (cast, whole):
            made.meta |= node.meta
        node.update_arg(1, whole)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's own log lines and deprecation warnings: its errors are reported by us."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextmanager
def _refusals(problem: Problem) -> Iterator[None]:
    """Turns whatever export raises into a CaptureError that names the user's line."""
    try:
        yield
    except CaptureError as error:
        raise CaptureError(f"{problem.path or type(problem.module).__name__}: {error}") from error
    except Exception as error:
        place = user_frame(problem, traceback.extract_tb(error.__traceback__))
        where = str(problem.path or type(problem.module).__name__)
        if place is not None:
            text = linecache.getline(place.filename, place.lineno or 0).strip()
            where = f"{place.filename}:{place.lineno}: `{text}`"
        raise CaptureError(f"{where}: cannot be captured: {_reason(error)}") from error


def user_frame(
    problem: Problem, frames: traceback.StackSummary | list[traceback.FrameSummary]
) -> traceback.FrameSummary | None:
    """The innermost frame in the problem's own file, else the innermost outside torch and us."""
    own = [f for f in frames if problem.path is not None and f.filename == str(problem.path)]
    if own:
        return own[-1]
    foreign = [f for f in frames if not _is_library(f.filename)]
    return foreign[-1] if foreign else None


_OUR_FILES = __file__.rsplit("/", 2)[0]
_TORCH_FILES = (torch.__file__ or "").rsplit("/", 1)[0]


def _is_library(filename: str) -> bool:
    return filename.startswith((_TORCH_FILES, _OUR_FILES, "<")) or "importlib" in filename


_VALUES_NEEDED = ("DataDependentOutputException", "DynamicOutputShapeException")


def _reason(error: BaseException) -> str:
    """What is wrong, in few words of torch's own: its first line."""
    kind = type(error).__name__
    first = next(iter(str(error).strip().splitlines()), kind).partition(" (unhinted")[0]
    if kind == "GuardOnDataDependentSymNode":
        return (
            "the program depends on the values of a tensor (a branch on them, float() or int() of "
            "one, an extent), not only on its shape; x.item() may enter arithmetic "
            f"[torch: {first}]"
        )
    if kind in _VALUES_NEEDED:
        return f"{first} depends on the values of a tensor, not only on its shape"
    if ".numpy()" in first:
        return "a tensor is handed to NumPy, whose work nobody can follow: use torch's functions"
    if "FakeTensor" in first:
        return f"the values of a tensor are needed as numbers here [{kind}: {first}]"
    return first if kind in first else f"{kind}: {first}"
