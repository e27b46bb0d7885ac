"""Reads from the live module how forward is called and what its result silently depends on.

Only what guards need: signature, constants among the arguments, plain attributes and modes of the
submodules, ties between parameters. The computation itself is captured elsewhere.
"""

import ast
import dataclasses
import inspect
import keyword
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from fusewright.ir.graph import Graph, Path
from fusewright.ir.interface import Condition, Held, Interface, ModuleFact, Parameter
from fusewright.problem import Problem

_OWN = frozenset(vars(nn.Module()))
PLAIN = (bool, int, float, str)


def interface(problem: Problem, graph: Graph) -> Interface:
    """The interface of the problem's forward, for the arguments that the problem gives."""
    signature = list(inspect.signature(type(problem.module).forward).parameters.values())[1:]
    parameters = _parameters(signature, len(problem.inputs))
    found = _Arguments([], [])
    for k, value in enumerate(problem.inputs):
        found.visit((k,), f"args[{k}]" if parameters is None else parameters[k].name, value)
    if parameters is not None:
        for k, p in list(enumerate(signature))[len(problem.inputs) :]:
            found.visit((k,), p.name, p.default)
    given = dict(found.tensors)
    numbers = {id(part): k for k, part in enumerate(problem.module.modules())}
    tensors: list[tuple[str, str]] = []
    held: list[tuple[str, Held]] = []
    for s in (s for s in graph.inputs if s.literal is None):
        if s.node.role == "input":
            tensors.append((s.name, given[s.path]))
        elif (registered := _registered(problem.module, s.path, numbers)) is not None:
            held.append((s.name, registered))
        else:
            tensors.append((s.name, held_text(problem.module, s.path)))
    return Interface(
        parameters,
        len(problem.inputs),
        tuple(tensors),
        tuple(held),
        (*found.conditions, *_ties(problem.module)),
        tuple(_module_facts(problem.module)),
    )


def _registered(module: nn.Module, path: Path, numbers: Mapping[int, int]) -> Held | None:
    """Where the parameter or buffer at `path` is registered; None for a plain attribute."""
    owner: Any = module
    for part in path[:-1]:
        owner = getattr(owner, str(part), None)
    name = str(path[-1])
    if isinstance(owner, nn.Module) and name in owner._parameters:
        return Held(numbers[id(owner)], "_parameters", name)
    if isinstance(owner, nn.Module) and name in owner._buffers:
        return Held(numbers[id(owner)], "_buffers", name)
    return None


# ---------------------------------------------------------------------------------------- arguments


def _parameters(found: Sequence[inspect.Parameter], given: int) -> tuple[Parameter, ...] | None:
    """Forward's parameters, if each can be written down again, else None."""
    if any(p.kind is not p.POSITIONAL_OR_KEYWORD for p in found) or given > len(found):
        return None
    out = []
    for p in found:
        default = None if p.default is p.empty else literal(p.default)
        if default is None and (p.default is not p.empty or len(out) >= given):
            return None
        out.append(Parameter(p.name, default))
    return tuple(out)


@dataclasses.dataclass(slots=True)
class _Arguments:
    tensors: list[tuple[Path, str]]
    conditions: list[Condition]

    def visit(self, path: Path, text: str, value: Any) -> None:
        """Record tensors and what must hold for everything else in one argument."""
        if isinstance(value, torch.Tensor):
            self.tensors.append((path, text))
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            self._container(path, text, value, _fields(value))
        elif isinstance(value, tuple) and (names := getattr(value, "_fields", None)):
            self._container(path, text, value, dict(zip(names, value, strict=True)))
        elif isinstance(value, Mapping):
            name, keys = type(value).__name__, list(value)
            self._require(
                f'type({text}).__name__ == "{name}" and list({text}) == {keys!r}',
                f"{text} is not a {name} with the keys {keys!r}",
            )
            self._items(path, text, value)
        elif isinstance(value, list | tuple):
            self._require(
                f"type({text}) is {type(value).__name__} and len({text}) == {len(value)}",
                f"{text} is not a {type(value).__name__} of {len(value)}",
            )
            self._items(path, text, dict(enumerate(value)))
        else:
            self._constant(text, value)

    def _container(self, path: Path, text: str, value: Any, members: Mapping[str, Any]) -> None:
        name = type(value).__name__
        self._require(f'type({text}).__name__ == "{name}"', f"{text} is not a {name}")
        for key, member in members.items():
            self.visit((*path, key), f"{text}.{key}", member)

    def _items(self, path: Path, text: str, members: Mapping[Any, Any]) -> None:
        for key, member in members.items():
            self.visit((*path, key), f"{text}[{key!r}]", member)

    def _constant(self, text: str, value: Any) -> None:
        spelled = literal(value)
        if spelled is None:
            name = type(value).__name__
            self._require(f'type({text}).__name__ == "{name}"', f"{text} is not a {name}")
        elif value is None:
            self._require(f"{text} is None", _differs(text, spelled))
        elif isinstance(value, float) and math.isnan(value):
            self._require(f"{text} != {text}", _differs(text, "nan"))
        elif isinstance(value, PLAIN):
            name = type(value).__name__
            self._require(
                f"type({text}) is {name} and {text} == {spelled}", _differs(text, spelled)
            )
        else:
            self._require(f"{text} == {spelled}", _differs(text, spelled))

    def _require(self, text: str, refusal: str) -> None:
        self.conditions.append(Condition(text, refusal))


def _differs(text: str, spelled: str | None) -> str:
    return f"{text} is not {spelled}, the value the kernels were made for"


def _fields(value: Any) -> dict[str, Any]:
    return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}


def literal(value: Any) -> str | None:
    """Python text of plain data (numbers, text, dtypes, devices, containers of them), else None."""
    if type(value) is float:
        return repr(value) if math.isfinite(value) else f'float("{value}")'
    if type(value) is str and '"' not in value and "\\" not in value and value.isprintable():
        return f'"{value}"'
    if value is None or type(value) in PLAIN or isinstance(value, torch.dtype):
        return repr(value)
    if isinstance(value, torch.device):
        return f'torch.device("{value}")'
    if type(value) in (list, tuple):
        parts = [literal(v) for v in value]
        return _bracketed(type(value) is list, parts)
    if type(value) is dict:
        parts = [_pair(literal(k), literal(v)) for k, v in value.items()]
        inner = _joined(parts)
        return None if inner is None else f"{{{inner}}}"
    return None


def _pair(key: str | None, value: str | None) -> str | None:
    return None if key is None or value is None else f"{key}: {value}"


def _joined(parts: Sequence[str | None]) -> str | None:
    known = [p for p in parts if p is not None]
    return ", ".join(known) if len(known) == len(parts) else None


def _bracketed(is_list: bool, parts: Sequence[str | None]) -> str | None:
    inner = _joined(parts)
    if inner is None:
        return None
    if is_list:
        return f"[{inner}]"
    return f"({inner},)" if len(parts) == 1 else f"({inner})"


# ------------------------------------------------------------------------------------------ modules


def held_text(module: nn.Module, path: Path) -> str:
    """Python text that reads what `module` holds at `path`: `self.net.weight`, `self.tables[0]`."""
    text, here = "self", module
    for part in path:
        if isinstance(here, list | tuple | Mapping):
            text, here = f"{text}[{part!r}]", here[part]  # pyright: ignore[reportArgumentType, reportCallIssue]
            continue
        name = str(part)
        plain = name.isidentifier() and not keyword.iskeyword(name)
        text = f"{text}.{name}" if plain else f'getattr({text}, "{name}")'
        here = getattr(here, name)
    return text


def _ties(module: nn.Module) -> Iterator[Condition]:
    """Parameters and buffers that are one tensor under several names must stay one."""
    first: dict[int, str] = {}
    named = (
        *module.named_parameters(remove_duplicate=False),
        *module.named_buffers(remove_duplicate=False),
    )
    for name, tensor in named:
        known = first.setdefault(id(tensor), name)
        if known != name:
            a, b = (held_text(module, tuple(n.split("."))) for n in (known, name))
            yield Condition(f"{a} is {b}", f"{known} and {name} are no longer one tensor")


def _module_facts(module: nn.Module) -> Iterator[ModuleFact]:
    classes = dict.fromkeys(type(part) for part in module.modules())
    looks = {cls: looks_at_training(cls) for cls in classes}
    for path, part in module.named_modules():
        found = [
            (name, text)
            for name, value in vars(part).items()
            if name not in _OWN and (text := literal(value)) is not None and text != 'float("nan")'
        ]
        if looks[type(part)]:
            found.append(("training", repr(part.training)))
        yield ModuleFact(path, type(part).__name__, tuple(found))


def looks_at_training(cls: type) -> bool:
    """Whether the code of the class or of its bases below nn.Module mentions `training`.

    Comments and docstrings do not count. A class without source is taken to do so.
    """
    return any(_mentions_training(c) for c in cls.__mro__ if _is_below_module(c))


def _is_below_module(cls: type) -> bool:
    return issubclass(cls, nn.Module) and cls is not nn.Module


def _mentions_training(cls: type) -> bool:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError, SyntaxError):
        return True
    return any(
        (isinstance(n, ast.Attribute) and n.attr == "training")
        or (isinstance(n, ast.Constant) and n.value == "training")
        for n in ast.walk(tree)
    )
