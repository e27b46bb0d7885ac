"""A problem: a model, its inputs and its source, read from a file or taken from a live module.

A problem file defines `class Model(nn.Module)`, `get_inputs()` and, when the constructor takes
arguments, `get_init_inputs()`. This module runs that file and builds the objects; it does not look
inside the model. What a forward pass means is `capture`'s business.

Nothing is allocated that is not needed: with `fake=True` parameters and inputs are fake tensors,
which have a shape, strides, dtype and device but no memory. Code that needs real values (`.item()`,
`.numpy()`, a branch on a tensor) is run again with real tensors, whose fake images are kept.
"""

import ast
import copy
import importlib.util
import inspect
import linecache
import random
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from fusewright.errors import ProblemError

T = TypeVar("T")

SEED = 0
"""Seed of the random generators while objects are built, unless the caller names another."""

CONVENTION = (
    "a problem file defines `class Model(torch.nn.Module)`, `get_inputs()` and, if the "
    "constructor takes arguments, `get_init_inputs()`"
)


@dataclass(frozen=True, slots=True)
class TorchDefaults:
    """torch's default dtype and device, which a problem file may set for itself."""

    dtype: torch.dtype
    device: torch.device

    @classmethod
    def current(cls) -> "TorchDefaults":
        return cls(torch.get_default_dtype(), torch.get_default_device())

    def install(self) -> None:
        """Set what differs. Setting the device costs a function mode, so `cpu` means none."""
        current = TorchDefaults.current()
        if self.dtype != current.dtype:
            torch.set_default_dtype(self.dtype)
        if self.device != current.device:
            torch.set_default_device(None if self.device == torch.device("cpu") else self.device)


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
        file = _ProblemFile(path, source, vars(loaded))
        (module, args, kwargs), why_model = _built(file.construct, _fake_model, mode)
        inputs, why_inputs = _built(file.inputs, _fake_tree, mode)
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
    path = _defining_file(type(module))
    defining = sys.modules.get(type(module).__module__)
    return Problem(
        path=path,
        source=None if path is None else _read_source(path),
        module=fake_image(module, mode),
        inputs=_fake_tree(list(example_inputs), mode),
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


def _file_of(problem: Problem) -> "_ProblemFile":
    if problem.path is None or problem.source is None or problem.original is not None:
        raise ProblemError("this problem was made from a live module: it has no file to build from")
    return _ProblemFile(problem.path, problem.source, problem.namespace)


# --- running the user's file -------------------------------------------------------------------


def execute_file(path: str | Path) -> tuple[ModuleType, str]:
    """Run a Python file as a new module; returns (module, text).

    The module stays in `sys.modules` under a name of its own, because dataclasses, pickling and
    `inspect.getsource` look it up there. No byte code is written beside the file. Raises
    ProblemError for a file that cannot be read, is not Python, or raises.
    """
    source = _read_source(path)
    filename = str(Path(path).absolute())
    try:
        code = compile(source, filename, "exec", dont_inherit=True)
    except SyntaxError as error:
        place = f"{path}:{error.lineno}" if error.lineno else str(path)
        raise ProblemError(f"{place}: not Python: {error.msg}") from error
    except ValueError as error:
        raise ProblemError(f"{path}: not Python: {error}") from error
    name = _free_module_name(Path(path).stem)
    spec = importlib.util.spec_from_file_location(name, filename)
    module = ModuleType(name) if spec is None else importlib.util.module_from_spec(spec)
    module.__file__ = filename
    linecache.checkcache(filename)
    sys.modules[name] = module
    try:
        with _user_code(path, "the file"):
            exec(code, vars(module))
    except BaseException:
        del sys.modules[name]
        raise
    return module, source


def _read_source(path: str | Path) -> str:
    try:
        return importlib.util.decode_source(Path(path).read_bytes())
    except OSError as error:
        raise ProblemError(f"{path}: cannot be read: {error.strerror}") from error
    except (SyntaxError, UnicodeDecodeError) as error:
        raise ProblemError(f"{path}: not Python: {error}") from error


def _free_module_name(stem: str) -> str:
    """`fusewright_problem_<stem>`, numbered when a file of that name is already loaded."""
    name = "fusewright_problem_" + re.sub(r"\W", "_", stem)
    candidate, number = name, 2
    while candidate in sys.modules:
        candidate, number = f"{name}_{number}", number + 1
    return candidate


@contextmanager
def _user_code(path: str | Path, what: str) -> Iterator[None]:
    """Turns what the user's code raises into a ProblemError that names its last line involved."""
    try:
        yield
    except (Exception, SystemExit) as error:
        line = _last_line_in(path, error)
        place = str(path) if line is None else f"{path}:{line}"
        raise ProblemError(f"{place}: {what} raised {_summary(error)}") from error


def _last_line_in(path: str | Path, error: BaseException) -> int | None:
    """The line of the innermost frame of `path` that the exception passed through."""
    filename = str(Path(path).absolute())
    frames = traceback.walk_tb(error.__traceback__)
    lines = [line for frame, line in frames if frame.f_code.co_filename == filename]
    return lines[-1] if lines else None


def _summary(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


@dataclass(frozen=True, slots=True)
class _ProblemFile:
    """An executed problem file; builds its objects under whatever tensor mode is active."""

    path: str | Path
    source: str
    namespace: Mapping[str, Any]

    def construct(self) -> tuple[nn.Module, list[Any], dict[str, Any]]:
        """(model, positional, keyword arguments of its constructor)."""
        model_class = self._model_class()
        args, kwargs = split_init_args(model_class, self._init_inputs())
        with _user_code(self.path, "the constructor of Model"):
            return model_class(*args, **kwargs), args, kwargs

    def inputs(self) -> list[Any]:
        """The list that get_inputs returns; a tuple is taken as one."""
        if "get_inputs" not in self.namespace:
            raise ProblemError(f"{self.path}: no function `get_inputs`; {CONVENTION}")
        return self._call_for_list("get_inputs")

    def _init_inputs(self) -> list[Any]:
        if "get_init_inputs" not in self.namespace:
            return []
        return self._call_for_list("get_init_inputs")

    def _model_class(self) -> type[nn.Module]:
        if "Model" not in self.namespace:
            raise ProblemError(f"{self.path}: no class `Model`; {CONVENTION}")
        model_class = self.namespace["Model"]
        if not (isinstance(model_class, type) and issubclass(model_class, nn.Module)):
            raise ProblemError(f"{self._place('Model')}: `Model` is not a torch.nn.Module subclass")
        return model_class

    def _call_for_list(self, name: str) -> list[Any]:
        function = self.namespace[name]
        if not callable(function):
            raise ProblemError(f"{self._place(name)}: `{name}` is not a function")
        with _user_code(self.path, name):
            returned = function()
        if not isinstance(returned, list | tuple):
            kind = type(returned).__name__
            raise ProblemError(f"{self._place(name)}: {name} returned a {kind}, not a list")
        return list(returned)

    def _place(self, name: str) -> str:
        """`file:line` of the top-level definition of `name`, or the file alone."""
        for node in ast.parse(self.source).body:
            if getattr(node, "name", None) == name or name in _assigned_names(node):
                return f"{self.path}:{node.lineno}"
        return str(self.path)


def _assigned_names(node: ast.stmt) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def split_init_args(
    model_class: type[nn.Module], returned: Sequence[Any]
) -> tuple[list[Any], dict[str, Any]]:
    """(positional, keyword arguments) from what get_init_inputs returned.

    Usually that is the list of positional arguments. KernelBench also has `[[args], {kwargs}]`: a
    pair of a list and a dict is read so when the dict's keys all name parameters of the
    constructor, which an empty dict's do.
    """
    match returned:
        case [list() | tuple() as args, dict() as kwargs] if _accepts(model_class, kwargs):
            return list(args), dict(kwargs)
    return list(returned), {}


def _accepts(model_class: type[nn.Module], kwargs: Mapping[Any, Any]) -> bool:
    parameters = inspect.signature(model_class).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return all(isinstance(key, str) for key in kwargs)
    return all(key in parameters for key in kwargs)


def _defining_file(model_class: type[nn.Module]) -> Path | None:
    """The file that defines the class, None for a class made in a shell or by exec."""
    try:
        found = inspect.getsourcefile(model_class)
    except (TypeError, OSError):
        return None
    path = None if found is None else Path(found).absolute()
    return path if path is not None and path.is_file() else None


# --- fake tensors ------------------------------------------------------------------------------


def make_fake_mode() -> FakeTensorMode:
    """A fake mode that torch.export accepts: it has a shape environment, though shapes are static.

    Reading a fake tensor's value raises instead of making a symbol, so that a model that depends
    on values is noticed. Real tensors (the user's module-level constants) may be mixed in.
    """
    shape_env = ShapeEnv(
        tracked_fakes=[], allow_scalar_outputs=False, allow_dynamic_output_shape_ops=False
    )
    return FakeTensorMode(shape_env=shape_env, static_shapes=True, allow_non_fake_inputs=True)


class _ForgetConversions(TorchFunctionMode):
    """Drops the fake mode's weak references to tensors after each torch call.

    `nn.Module.to`, `half` and the like swap a fake parameter in place with its converted image,
    which torch refuses while a weak reference to it exists; the mode's memo holds one.
    """

    def __init__(self, mode: FakeTensorMode) -> None:
        super().__init__()
        self.memo = mode.fake_tensor_converter.meta_converter.tensor_memo

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.memo.clear()
        return result


def _built(
    build: Callable[[], T], to_fake: Callable[[T, FakeTensorMode], T], mode: FakeTensorMode | None
) -> tuple[T, str | None]:
    """(what `build` makes, why real tensors were needed or None); fake where there is a mode.

    Fake tensors fail where a value is read, in ways that no list covers, so any failure is tried
    again with real tensors; if those fail too, the user's code is at fault and that error counts.
    """
    if mode is None:
        with seeded(SEED):
            return build(), None
    try:
        with seeded(SEED), mode, _ForgetConversions(mode), warnings.catch_warnings():
            # Tensor.__deepcopy__ looks at the data pointer; under a fake mode that is harmless.
            warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")
            made = build()
        return to_fake(made, mode), None
    except ProblemError as error:
        reason = _reason(error)
    with seeded(SEED):
        made = build()
    return to_fake(made, mode), reason


def _reason(error: ProblemError) -> str:
    cause = error.__cause__
    return str(error) if cause is None else _summary(cause)


def _fake_model(
    made: tuple[nn.Module, list[Any], dict[str, Any]], mode: FakeTensorMode
) -> tuple[nn.Module, list[Any], dict[str, Any]]:
    module, args, kwargs = made
    image = module if _is_fake(module) else fake_image(module, mode)
    return image, _fake_tree(args, mode), _fake_tree(kwargs, mode)


def _fake_tree(tree: T, mode: FakeTensorMode) -> T:
    return pytree.tree_map_only(torch.Tensor, lambda tensor: fake_tensor(tensor, mode), tree)


def fake_tensor(tensor: torch.Tensor, mode: FakeTensorMode) -> torch.Tensor:
    """The tensor's image without memory; views of one storage stay views of one storage."""
    if isinstance(tensor, FakeTensor):
        return tensor
    return mode.from_tensor(tensor, static_shapes=True)


def fake_image(module: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """A copy of the module whose tensors are fake; ties and aliases are kept, no data is copied.

    Raises ProblemError when the module holds something that cannot be deep-copied.
    """
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if nn.parameter.is_lazy(tensor):
            raise ProblemError(
                f"{name} of {type(module).__name__} has no shape before the first call: give sizes "
                "instead of a lazy module, or call the model once in its constructor"
            )
    # deepcopy takes an object's copy from `memo` where it finds one, so no tensor is ever copied.
    memo: dict[int, Any] = {id(t): fake_tensor(t, mode) for t in _tensors_of(module)}
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:
        raise ProblemError(
            f"the module {type(module).__name__} cannot be deep-copied, which reading it without "
            f"touching it needs: {_summary(error)}"
        ) from error


def _tensors_of(module: nn.Module) -> list[torch.Tensor]:
    """Parameters, buffers and plain tensor attributes, those inside containers included."""
    leaves = [leaf for part in module.modules() for leaf in pytree.tree_leaves(vars(part))]
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _is_fake(module: nn.Module) -> bool:
    return all(isinstance(tensor, FakeTensor) for tensor in _tensors_of(module))


# --- global state, saved and restored ----------------------------------------------------------


@contextmanager
def restored_defaults() -> Iterator[None]:
    """torch's default dtype and device are afterwards what they were before."""
    before = TorchDefaults.current()
    try:
        yield
    finally:
        before.install()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random generators of torch, NumPy and Python start from `seed`; restored afterwards.

    A CUDA generator is saved only where CUDA is already in use: asking would create a context.
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=list(devices)):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
