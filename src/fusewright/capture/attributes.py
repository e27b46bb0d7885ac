"""Plain attributes of the user's modules while forward runs: tensors among them, and assignments.

A plain tensor attribute behaves like a buffer that no state_dict holds, so for torch.export it is
made one: then forward may write to it or assign it. torch's own modules are not looked at.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

Attributes = Mapping[str, Mapping[str, Any]]


def plain_attributes(module: nn.Module) -> Attributes:
    """What each module holds beside parameters, buffers and modules, by the module's path."""
    return {path: dict(vars(part)) for path, part in user_modules(module)}


def user_modules(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for path, part in module.named_modules():
        if not type(part).__module__.startswith("torch."):
            yield path, part


_ABSENT = object()


def assigned(before: Attributes, after: Attributes) -> Iterator[str]:
    """Dotted paths of the attributes that are other objects than before."""
    for path, attributes in after.items():
        for name, value in attributes.items():
            if before.get(path, attributes).get(name, _ABSENT) is not value:
                yield f"{path}.{name}" if path else name


@contextmanager
def put_back(module: nn.Module) -> Iterator[Attributes]:
    """The attributes as they are; whatever is done to them is undone at the end."""
    before = plain_attributes(module)
    try:
        yield before
    finally:
        for path, attributes in before.items():
            vars(module.get_submodule(path)).clear()
            vars(module.get_submodule(path)).update(attributes)


@contextmanager
def tensors_as_buffers(module: nn.Module) -> Iterator[None]:
    """While it lasts, plain tensor attributes are buffers outside the state_dict."""
    found = [
        (part, name, value)
        for _, part in user_modules(module)
        for name, value in vars(part).items()
        if isinstance(value, torch.Tensor)
    ]
    with put_back(module):
        for part, name, value in found:
            del vars(part)[name]
            part._buffers[name] = value
            part._non_persistent_buffers_set.add(name)
        try:
            yield
        finally:
            for part, name, _ in found:
                part._buffers.pop(name, None)
                part._non_persistent_buffers_set.discard(name)
