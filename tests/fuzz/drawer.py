"""Small choices that the makers of lines share: an operand, an axis, a list of axes."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from hypothesis import strategies as st
from torch import Tensor

from .scope import Scope

T = TypeVar("T")
_WHOLE = {(a, b): st.integers(a, b) for a in range(-3, 2) for b in range(a, 41)}


class Drawer:
    """Choices out of hypothesis; the simplest choice comes first in each sequence."""

    def __init__(self, draw: Callable[[Any], Any]) -> None:
        self.draw = draw
        self.dtype = "float32"

    def whole(self, low: int, high: int) -> int:
        made = _WHOLE.get((low, high))
        return self.draw(st.integers(low, high) if made is None else made)

    def pick(self, options: Sequence[T]) -> T:
        return options[self.whole(0, len(options) - 1)]

    def flag(self) -> bool:
        return bool(self.whole(0, 1))

    def operand(
        self, scope: Scope, test: Callable[[Tensor], bool] = lambda _: True, exact: bool = False
    ) -> tuple[str, Tensor] | None:
        """A name and its value; None where no value passes the test."""
        names = scope.names(test, exact)
        if not names:
            return None
        name = names[len(names) - 1 - self.whole(0, len(names) - 1)]
        return name, scope.values[name]

    def axis(self, x: Tensor) -> int:
        """An axis of x, counted from either end; 0 for a scalar."""
        return self.whole(-x.ndim, x.ndim - 1) if x.ndim else 0

    def axes(self, x: Tensor) -> list[int]:
        """At least one axis of x, in any order."""
        chosen = [k for k in range(x.ndim) if self.flag()] or [self.whole(0, max(x.ndim - 1, 0))]
        return chosen[::-1] if self.flag() else chosen

    def order(self, count: int) -> list[int]:
        rest = list(range(count))
        return [rest.pop(self.whole(0, len(rest) - 1)) for _ in range(count)]


def is_float(x: Tensor) -> bool:
    return x.dtype.is_floating_point


def is_integer(x: Tensor) -> bool:
    return not x.dtype.is_floating_point and x.dtype != torch.bool


def is_bool(x: Tensor) -> bool:
    return x.dtype == torch.bool


def has_rank(low: int, high: int = 6) -> Callable[[Tensor], bool]:
    return lambda x: low <= x.ndim <= high


def float_of_rank(low: int, high: int = 6) -> Callable[[Tensor], bool]:
    return lambda x: is_float(x) and low <= x.ndim <= high
