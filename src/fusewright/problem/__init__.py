"""A problem: a model, its inputs and its source, read from a file or taken from a live module.

A problem file defines `class Model(nn.Module)`, `get_inputs()` and, when the constructor takes
arguments, `get_init_inputs()`. `file` runs it, `fakes` makes tensors without memory, `state` keeps
torch's global state as it was. Nobody looks inside the model here: what a forward pass means is
`capture`'s business.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fusewright.errors import ProblemError

from .fakes import built_as, fake_image, fake_model, fake_tree, make_fake_mode
from .file import ProblemFile, defining_file, execute_file, read_source, split_init_args
from .state import SEED, TorchDefaults, restored_defaults, seeded

__all__ = [
    "Problem",
    "build_inputs",
    "build_module",
    "execute_file",
    "load_problem",
    "nn",
    "problem_from_module",
    "seeded",
    "split_init_args",
]


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """A model with the inputs it is to be optimised for.

    path: absolute path of the problem file, None for a live module of unknown origin.
    source: text of that file, None likewise.
    module: the model; its tensors belong to `fake_mode` unless that is None.
    inputs: positional arguments of forward, tensors and other values, as get_inputs returns them.
    init_args, init_kwargs: the constructor's arguments.
    fake_mode: the mode that owns the fake tensors, None when the tensors are real.
    namespace: the globals of the executed file.
    original: the live module whose image `module` is, None for a problem file.
    defaults: torch's default dtype and device after the file has run; see `as_the_file_left_torch`.
    warnings: for the user, for instance why real tensors were needed.
    """

    path: Path | None
    source: str | None
    module: nn.Module
    inputs: list[Any]
    init_args: list[Any]
    init_kwargs: dict[str, Any]
    fake_mode: FakeTensorMode | None
    namespace: Mapping[str, Any]
    original: nn.Module | None = None
    defaults: TorchDefaults = field(default_factory=TorchDefaults.current)
    warnings: tuple[str, ...] = ()

    @contextmanager
    def as_the_file_left_torch(self) -> Iterator[None]:
        """The default dtype and device that the problem file set, for running its code."""
        with restored_defaults():
            self.defaults.install()
            yield


def load_problem(path: str | Path, *, fake: bool) -> Problem:
    """Run a problem file and build its model and inputs, the same way on every call.

    The file runs as a module of its own name in `sys.modules`, under any working directory, with
    random generators seeded and restored; torch's default dtype and device are left as found.
    With `fake` the tensors have no memory. Raises ProblemError, with the line of the user's code
    at fault where there is one.
    """
    mode = make_fake_mode() if fake else None
    with seeded(SEED), restored_defaults():
        loaded, source = execute_file(path)
        defaults = TorchDefaults.current()
        file = ProblemFile(path, source, vars(loaded))
        (module, args, kwargs), why_model = built_as(file.construct, fake_model, mode)
        inputs, why_inputs = built_as(file.inputs, fake_tree, mode)
    built = (("the model", why_model), ("the inputs", why_inputs))
    return Problem(
        path=Path(path).absolute(),
        source=source,
        module=module,
        inputs=inputs,
        init_args=args,
        init_kwargs=kwargs,
        fake_mode=mode,
        namespace=vars(loaded),
        defaults=defaults,
        warnings=tuple(_fallback(path, what, why) for what, why in built if why is not None),
    )


def _fallback(path: str | Path, what: str, why: str) -> str:
    return (
        f"{path}: {what} had to be built with real tensors, in full size: "
        f"under fake tensors it raised {why}"
    )


def problem_from_module(module: nn.Module, example_inputs: Sequence[Any]) -> Problem:
    """A problem from a live module and the positional arguments of one forward call.

    The problem holds a fake image of the module and inputs: same types, ties, strides and devices,
    no copied data; the module itself stays untouched and is kept as `original`. The source is that
    of the file that defines the module's class, None where there is no such file. Raises
    ProblemError for arguments of the wrong kind and for a module that cannot be deep-copied.
    """
    if not isinstance(module, nn.Module):
        raise ProblemError(f"the model is a {type(module).__name__}, not a torch.nn.Module")
    if not isinstance(example_inputs, list | tuple):
        raise ProblemError(
            f"example_inputs is a {type(example_inputs).__name__}; pass the positional arguments "
            "of forward as a tuple or list"
        )
    mode = make_fake_mode()
    path = defining_file(type(module))
    defining = sys.modules.get(type(module).__module__)
    return Problem(
        path=path,
        source=None if path is None else read_source(path),
        module=fake_image(module, mode),
        inputs=fake_tree(list(example_inputs), mode),
        init_args=[],
        init_kwargs={},
        fake_mode=mode,
        namespace={} if defining is None else vars(defining),
        original=module,
    )


def build_module(problem: Problem, *, seed: int = SEED) -> nn.Module:
    """A new model with real parameters, drawn with `seed`. Raises ProblemError as load_problem."""
    with seeded(seed), problem.as_the_file_left_torch():
        return _file_of(problem).construct()[0]


def build_inputs(problem: Problem, *, seed: int = SEED) -> list[Any]:
    """New real inputs, drawn with `seed`. Raises ProblemError as load_problem."""
    with seeded(seed), problem.as_the_file_left_torch():
        return _file_of(problem).inputs()


def _file_of(problem: Problem) -> ProblemFile:
    if problem.path is None or problem.source is None or problem.original is not None:
        raise ProblemError("this problem was made from a live module: it has no file to build from")
    return ProblemFile(problem.path, problem.source, problem.namespace)
