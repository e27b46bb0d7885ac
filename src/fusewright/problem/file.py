"""Runs a problem file as a module of its own and builds what it defines; errors name its lines.

Nothing of fake tensors or of random seeds is known here.
"""

import ast
import importlib.util
import inspect
import linecache
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from fusewright.errors import ProblemError

CONVENTION = (
    "a problem file defines `class Model(torch.nn.Module)`, `get_inputs()` and, if the "
    "constructor takes arguments, `get_init_inputs()`"
)


def execute_file(path: str | Path) -> tuple[ModuleType, str]:
    """Run a Python file as a new module; returns (module, text).

    The module stays in `sys.modules` under a name of its own, because dataclasses, pickling and
    `inspect.getsource` look it up there. No byte code is written beside the file. Raises
    ProblemError for a file that cannot be read, is not Python, or raises.
    """
    source = read_source(path)
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


def read_source(path: str | Path) -> str:
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
        raise ProblemError(f"{place}: {what} raised {summary(error)}") from error


def _last_line_in(path: str | Path, error: BaseException) -> int | None:
    """The line of the innermost frame of `path` that the exception passed through."""
    filename = str(Path(path).absolute())
    frames = traceback.walk_tb(error.__traceback__)
    lines = [line for frame, line in frames if frame.f_code.co_filename == filename]
    return lines[-1] if lines else None


def summary(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


@dataclass(frozen=True, slots=True)
class ProblemFile:
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


def defining_file(model_class: type[nn.Module]) -> Path | None:
    """The file that defines the class, None for a class made in a shell or by exec."""
    try:
        found = inspect.getsourcefile(model_class)
    except (TypeError, OSError):
        return None
    path = None if found is None else Path(found).absolute()
    return path if path is not None and path.is_file() else None
