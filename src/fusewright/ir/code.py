"""IR as Python text that rebuilds it: `evaluate(code(x)) == x`, for bug reports, tests and caches.

Works on both levels and on any of their parts. Shared values are written once. Text for people is
`ir.text` and `ir.program_text`.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from . import body, dtypes, graph, index, kernel
from .dtypes import DType
from .keyed import Keyed

# What gets a line and a name of its own: shared values, and the records that are long.
_NAMED = (Keyed, kernel.Kernel, kernel.Phase, kernel.LibraryCall, kernel.Buffer, graph.InputSpec)


def code(value: Any) -> str:
    """Assignments, operands first, that end in `result = ...`; needs the names of `namespace()`."""
    names: dict[Any, str] = {}
    lines = []
    for part in _parts(value):
        text = _text(part, names)
        stem = type(part).__name__.lower()
        names[_identity(part)] = f"{stem}_{len(names)}"
        lines.append(f"{names[_identity(part)]} = {text}")
    lines.append(f"result = {_text(value, names)}")
    return "\n".join(lines) + "\n"


def evaluate(text: str) -> Any:
    """The value that `code` printed. The text is executed: only for text that `code` made."""
    scope: dict[str, Any] = dict(namespace())
    exec(text, scope)
    return scope["result"]


def namespace() -> Mapping[str, Any]:
    """The names that printed code uses: the classes and dtypes of the IR."""
    out = {d.name.upper(): d for d in dtypes.ALL}
    for module in (graph, index, body, kernel):
        out |= {k: v for k, v in vars(module).items() if isinstance(v, type) and is_dataclass(v)}
    return out


def _identity(part: Any) -> Any:
    return part if isinstance(part, Keyed) else id(part)


def _parts(root: Any) -> Iterator[Any]:
    """Everything inside `root` that gets a name, once each, parts before wholes."""
    seen: set[Any] = set()
    stack: list[tuple[Any, bool]] = [(root, False)]
    while stack:
        value, ready = stack.pop()
        if ready:
            if _identity(value) not in seen:
                seen.add(_identity(value))
                yield value
        elif isinstance(value, _NAMED):
            if _identity(value) not in seen:
                stack.append((value, True))
                stack.extend((c, False) for c in reversed(_children(value)))
        else:
            stack.extend((c, False) for c in reversed(_children(value)))


def _children(value: Any) -> list[Any]:
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, Mapping):
        return [x for item in value.items() for x in item]
    if is_dataclass(value) and not isinstance(value, DType):
        return [getattr(value, f.name) for f in fields(value) if f.init]
    return []


def _text(value: Any, names: Mapping[Any, str]) -> str:
    if isinstance(value, _NAMED) and _identity(value) in names:
        return names[_identity(value)]
    if isinstance(value, DType):
        return value.name.upper()
    if isinstance(value, tuple):
        inner = ", ".join(_text(v, names) for v in value)
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, Mapping):
        pairs = (f"{_text(k, names)}: {_text(v, names)}" for k, v in value.items())
        return f"{{{', '.join(pairs)}}}"
    if is_dataclass(value):
        given = (_text(getattr(value, f.name), names) for f in fields(value) if f.init)
        return f"{type(value).__name__}({', '.join(given)})"
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return repr(value)
