"""What forward returns: its tensors, taken out of tuples, lists, dicts, named tuples, dataclasses.

Read from the live result, so that a class needs no registration with torch. Which tensors are the
same, or an input, is `signature`'s business.
"""

import dataclasses
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from fusewright.errors import CaptureError
from fusewright.ir.graph import Leaf, Tree, Verbatim

from .attributes import Attributes, assigned, plain_attributes, put_back

Structure = Tree | Leaf | Verbatim


class Watch:
    """A forward hook: the result becomes the flat tuple of its tensors, the structure is kept.

    `assigned` are the plain attributes that forward assigned, by dotted path.
    """

    def __init__(self, before: Attributes) -> None:
        self.before = before
        self.structure: Structure = Tree("tuple", (), ())
        self.assigned: tuple[str, ...] = ()

    def __call__(self, module: nn.Module, args: Any, returned: Any) -> tuple[torch.Tensor, ...]:
        tensors: list[torch.Tensor] = []
        self.structure = taken_apart(returned, tensors)
        self.assigned = tuple(assigned(self.before, plain_attributes(module)))
        return tuple(tensors)


@contextmanager
def watched(module: nn.Module) -> Iterator[Watch]:
    """While it lasts, `module` returns a flat tuple; then assigned attributes are put back."""
    with put_back(module) as before:
        watch = Watch(before)
        handle = module.register_forward_hook(watch)
        try:
            yield watch
        finally:
            handle.remove()


def taken_apart(value: Any, tensors: list[torch.Tensor]) -> Structure:
    """The structure of `value`; its tensors are appended to `tensors` and become Leaf(position).

    Raises CaptureError for what cannot be written down in an emitted file.
    """
    if isinstance(value, torch.Tensor):
        tensors.append(value)
        return Leaf(len(tensors) - 1)
    if isinstance(value, torch.Size):
        return Verbatim(f"torch.Size({list(value)})")
    if isinstance(value, tuple | list):
        return _sequence(value, tensors)
    if type(value) is dict:
        keys = tuple(_dict_key(k) for k in value)
        return Tree("dict", keys, _all(value.values(), tensors))
    if type(value) is OrderedDict and all(isinstance(k, str) for k in value):
        return _record(OrderedDict, value, tensors)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _record(type(value), _fields(value), tensors)
    return Verbatim(_spelled(value))


def _all(values: Iterable[Any], tensors: list[torch.Tensor]) -> tuple[Structure, ...]:
    return tuple(taken_apart(v, tensors) for v in values)


def _sequence(value: tuple[Any, ...] | list[Any], tensors: list[torch.Tensor]) -> Structure:
    kind = type(value)
    if kind in (tuple, list):
        return Tree(kind.__name__, ("",) * len(value), _all(value, tensors))
    fields = getattr(kind, "_fields", None)
    if fields is not None:
        return _record(kind, dict(zip(fields, value, strict=True)), tensors)
    if kind.__module__ == "torch.return_types":
        # Such a class is made from one sequence.
        inner = Tree("tuple", ("",) * len(value), _all(value, tensors))
        return Tree(f"torch.return_types.{kind.__name__}", ("sequence",), (inner,))
    raise _unknown(value)


def _record(cls: type, fields: Mapping[str, Any], tensors: list[torch.Tensor]) -> Structure:
    return Tree(cls.__qualname__, tuple(fields), _all(fields.values(), tensors))


def _fields(value: Any) -> dict[str, Any]:
    """The fields that the class's constructor takes."""
    return {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}


def _dict_key(key: Any) -> int | str:
    if isinstance(key, int | str):
        return key
    raise CaptureError(f"forward returns a dict with the key {key!r}: keys are strings or integers")


def _spelled(value: Any) -> str:
    """A constant as Python text."""
    if value is None or isinstance(value, bool | int | str):
        return repr(value)
    if isinstance(value, float):
        return repr(value) if value - value == 0 else f'float("{value}")'
    raise _unknown(value)


def _unknown(value: Any) -> CaptureError:
    kind = type(value)
    if kind in (torch.SymInt, torch.SymFloat, torch.SymBool):
        return CaptureError("forward returns a number that depends on the values of a tensor")
    return CaptureError(
        f"forward returns a {kind.__module__}.{kind.__qualname__}: return tensors and constants in "
        "tuples, lists, dicts, ordered dicts, named tuples or dataclasses"
    )
