"""The audit of the algebra: programs of six families, each with the least work that computes it.

A program is a function of tensors, given at a small size (values are compared) and at a large one
(work is compared). `ideal` counts float operations as the cost model does: two per multiply-add,
one per element read by a sum, about ten for a transcendental function, four for a division; `why`
derives it in one line. The programs stand for families, not for any particular model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

Shape = Sequence[int]
TRANSCENDENTAL, DIVISION = 10, 4


@dataclass(frozen=True)
class Program:
    """`function` of tensors of `small` or `large` shapes; `ideal(*large)` is its least work."""

    name: str
    function: Callable[..., Any]
    small: Sequence[Shape]
    large: Sequence[Shape]
    why: str
    ideal: Callable[..., float]


def product(m: int, k: int, n: int) -> int:
    """Operations of an m×k by k×n matrix product."""
    return 2 * m * k * n


def size(*shapes: Shape) -> int:
    """Elements of all `shapes`."""
    return sum(prod(s) for s in shapes)
