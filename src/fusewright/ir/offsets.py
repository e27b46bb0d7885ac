"""Where the elements of a tensor lie: strides, and coordinates to offsets and back.

Shapes, strides and index expressions only; nothing about dtypes or bytes lives here.
"""

from collections.abc import Iterable

from . import index as ix
from .index import Index


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides, in elements, of a contiguous tensor."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step)
        step *= max(n, 1)
    return tuple(reversed(strides))


def channels_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a tensor (N, C, *space) whose channels are neighbours in memory."""
    n, c, *space = shape
    inner = row_major((n, *space, c))
    return (inner[0], inner[-1], *inner[1:-1])


def flatten(index: Iterable[Index], strides: Iterable[int]) -> Index:
    """The element offset `sum(index * stride)`."""
    return ix.add(ix.const(0), *(ix.mul(i, s) for i, s in zip(index, strides, strict=True)))


def unflatten(offset: Index, shape: tuple[int, ...]) -> tuple[Index, ...]:
    """The coordinates of a row-major element offset."""
    strides = row_major(shape)
    return tuple(
        ix.div(offset, s) if k == 0 else ix.mod(ix.div(offset, s), max(n, 1))
        for k, (n, s) in enumerate(zip(shape, strides, strict=True))
    )
