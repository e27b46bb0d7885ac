"""Lowerings of padding: a `View` with validity for constants, index arithmetic for the others.

The amounts are ATen's: pairs (before, after), the last axis first; negative amounts crop.
"""

from collections.abc import Callable, Mapping, Sequence

from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir.graph import Node, Scalar
from fusewright.ir.index import Index

from .operands import NotLowered

Position = Callable[[Index, int], Index]


def _pairs(x: Node, amounts: Sequence[int]) -> list[tuple[int, int]]:
    """(before, after) of every axis, first axis first."""
    given = list(zip(amounts[::2], amounts[1::2], strict=True))[::-1]
    return [(0, 0)] * (len(x.shape) - len(given)) + given


def constant_pad(x: Node, amounts: Sequence[int], value: Scalar = 0) -> Node:
    """`value` outside x."""
    pairs = _pairs(x, amounts)
    shape = tuple(n + a + b for n, (a, b) in zip(x.shape, pairs, strict=True))
    if not x.size:
        return g.const(value, x.dtype, shape)
    at = [i - a for i, (a, _) in zip(ix.axes(shape), pairs, strict=True)]
    valid = [c for i, n in zip(at, x.shape, strict=True) for c in ix.inside(i, n)]
    fill = g.const(value, x.dtype)
    if not isinstance(fill, g.Const):
        raise NotLowered("fill value")
    return g.view(x, shape, at, ix.conjunction(valid), fill.value)


def _pad_with(position: Position, x: Node, amounts: Sequence[int]) -> Node:
    """Padding whose values are elements of x: coordinate i - before goes through `position`."""
    pairs = _pairs(x, amounts)
    shape = tuple(n + a + b for n, (a, b) in zip(x.shape, pairs, strict=True))
    at = [
        position(i - a, n) if a or b else i
        for i, n, (a, b) in zip(ix.axes(shape), x.shape, pairs, strict=True)
    ]
    return g.view(x, shape, at)


def _reflected(i: Index, n: int) -> Index:
    """Mirrored at both borders without repeating them: |i|, then 2 (n - 1) - i.

    The clamp changes nothing, but lets the bounds be seen.
    """
    inner = ix.maximum(i, i * -1)
    return _clamped(ix.minimum(inner, inner * -1 + 2 * (n - 1)), n)


def _clamped(i: Index, n: int) -> Index:
    return ix.minimum(ix.maximum(i, ix.const(0)), ix.const(n - 1))


def _wrapped(i: Index, n: int) -> Index:
    return i % n


def reflection_pad(x: Node, amounts: Sequence[int]) -> Node:
    return _pad_with(_reflected, x, amounts)


def replication_pad(x: Node, amounts: Sequence[int]) -> Node:
    return _pad_with(_clamped, x, amounts)


def circular_pad(x: Node, amounts: Sequence[int]) -> Node:
    return _pad_with(_wrapped, x, amounts)


def pad(
    x: Node, amounts: Sequence[int], mode: str = "constant", value: Scalar | None = None
) -> Node:
    """`torch.nn.functional.pad`."""
    if mode == "constant":
        return constant_pad(x, amounts, 0 if value is None else value)
    position = {"reflect": _reflected, "replicate": _clamped, "circular": _wrapped}[mode]
    return _pad_with(position, x, amounts)


TABLE: Mapping[str, Callable[..., Node]] = {
    "aten.pad.default": pad,
    "aten.constant_pad_nd.default": constant_pad,
    "aten._pad_circular.default": circular_pad,
    **{f"aten.reflection_pad{k}d.default": reflection_pad for k in (1, 2, 3)},
    **{f"aten.replication_pad{k}d.default": replication_pad for k in (1, 2, 3)},
}
