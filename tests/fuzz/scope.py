"""What a draft's statements have made so far, as real tensors: every line is tried by eager.

A line is kept when eager runs it and its result is small, finite and well enough conditioned for a
comparison to mean something. `exact` says of a value that no rounding went into it: comparisons,
conversions to integers and argmax take only such values, since a rounding could flip them.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .draft import Draft, Statement

DTYPES = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
)
LARGEST = 1e4
ERRORS = (RuntimeError, ValueError, IndexError, TypeError, AssertionError, AttributeError)
# NotImplementedError is a RuntimeError.


class Scope:
    """Names with their eager values; `most` bounds the elements of a value."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.module = nn.Module()
        self.values: dict[str, Tensor] = {}
        self.inputs: list[tuple[str, str]] = []
        self.state: list[tuple[str, str]] = []
        self.statements: list[Statement] = []
        self.inexact: set[int] = set()

    def names(self, test: Callable[[Tensor], bool], exact: bool = False) -> list[str]:
        """Names of the values for which `test` holds, later ones twice."""
        found = [n for n, v in self.values.items() if test(v) and not (exact and self.rounded(n))]
        return found + found[len(found) // 2 :]

    def rounded(self, name: str) -> bool:
        return _storage(self.values[name]) in self.inexact

    def add_input(self, expression: str) -> str:
        name = f"x{len(self.inputs)}"
        self.values[name] = self._evaluated(expression)
        self.inputs.append((name, expression))
        return name

    def add_state(self, kind: str, expression: str) -> str | None:
        """A parameter ("p"), buffer ("b") or submodule ("m"): its name as forward writes it."""
        name = f"{kind}{len(self.state)}"
        try:
            value = self._evaluated(expression)
        except ERRORS:
            return None
        setattr(self.module, name, value)
        self.state.append((name, expression))
        if isinstance(value, Tensor):
            self.values[f"self.{name}"] = value
        return f"self.{name}"

    def drop_state(self, name: str) -> None:
        """Forget the entry that was added last, which no statement uses."""
        assert f"self.{self.state[-1][0]}" == name
        delattr(self.module, self.state.pop()[0])
        self.values.pop(name, None)

    def add(self, text: str, rounds: bool) -> str | None:
        """The name of a new value, None when eager refuses the line or its value is of no use."""
        statement = Statement(f"v{len(self.statements)}", text)
        try:
            value = self._evaluated(text)
        except ERRORS:
            return None
        if not isinstance(value, Tensor) or not self._is_useful(value):
            return None
        if rounds or any(self.rounded(n) for n in statement.reads if n in self.values):
            if not value.dtype.is_floating_point:
                return None
            self._mark(value)
        self.values[statement.target] = value
        self.statements.append(statement)
        return statement.target

    def add_either(self, text: str) -> str | None:
        """As `add` for operands without rounding: the line rounds if its value is floating."""
        name = self.add(text, rounds=False)
        if name and self.values[name].dtype.is_floating_point:
            self._mark(self.values[name])
        return name

    def write(self, target: str, text: str, rounds: bool) -> bool:
        """Run a line that writes into the memory of `target`; undone when it is of no use."""
        before = self.values[target].untyped_storage().clone()
        statement = Statement("", text)
        value = self.values[target]
        try:
            exec(text, self._namespace())
            useful = value.numel() > 0 and self._is_useful(value)
        except ERRORS:
            useful = False
        rounds = rounds or any(self.rounded(n) for n in statement.reads if n in self.values)
        if not useful or (rounds and not value.dtype.is_floating_point):
            value.untyped_storage().copy_(before)
            return False
        if rounds:
            self._mark(value)
        self.statements.append(statement)
        return True

    def draft(self, outputs: tuple[str, ...], structure: str) -> Draft:
        return Draft(
            tuple(self.inputs), tuple(self.state), tuple(self.statements), outputs, structure
        )

    def _evaluated(self, text: str) -> Any:
        with torch.no_grad():
            return eval(text, self._namespace())

    def _namespace(self) -> dict[str, Any]:
        return {"torch": torch, "nn": nn, "F": F, "self": self.module, **self.values}

    def _is_useful(self, value: Tensor) -> bool:
        if value.dtype not in DTYPES or value.numel() > self.most or value.ndim > 6:
            return False
        if not value.dtype.is_floating_point or not value.numel():
            return True
        return bool(value.isfinite().all()) and float(value.abs().max()) <= LARGEST

    def _mark(self, value: Tensor) -> None:
        self.inexact.add(_storage(value))


def _storage(value: Tensor) -> int:
    return value.untyped_storage().data_ptr() if value.numel() else 0
