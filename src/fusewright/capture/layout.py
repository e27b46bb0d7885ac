"""Strides of the operands of calls: which of eager's layouts an Extern call must be handed.

Only layouts that can be recreated are recorded: dense ones in any order of axes, and axes that are
broadcast (stride 0). Gaps are closed; overlapping windows become row-major copies.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import fx

from fusewright.ir import offsets

Strides = tuple[int, ...]


def operand_strides(node: fx.Node) -> tuple[Strides, ...]:
    """The recreatable strides of the tensor operands, in order; () when all are row-major."""
    operands = fx_nodes((node.args, tuple(node.kwargs.values())))
    values = [n.meta.get("val") for n in operands]
    tensors = [v for v in values if isinstance(v, torch.Tensor)]
    strides = tuple(closed(tuple(t.shape), tuple(t.stride())) for t in tensors)
    pairs = zip(strides, tensors, strict=True)
    plain = all(s == offsets.row_major(tuple(t.shape)) for s, t in pairs)
    return () if plain else strides


def fx_nodes(args: Any) -> Iterable[fx.Node]:
    """All FX nodes among nested arguments."""
    if isinstance(args, fx.Node):
        yield args
    elif isinstance(args, tuple | list):
        for a in args:
            yield from fx_nodes(a)


def closed(shape: Sequence[int], strides: Sequence[int]) -> Strides:
    """Dense strides in the same order of axes, stride 0 kept; row-major where elements overlap."""
    if 0 in shape or _overlaps(shape, strides):
        return offsets.row_major(tuple(shape))
    wide = [k for k, n in enumerate(shape) if n > 1 and strides[k]]
    out = [0] * len(shape)
    step = 1
    for k in sorted(wide, key=lambda k: (strides[k], -k)):
        out[k] = step
        step *= shape[k]
    # The stride of an axis of one element says nothing: take the one row-major order would give.
    inner = 1
    for k in reversed(range(len(shape))):
        if shape[k] == 1:
            out[k] = inner
        inner = max(inner, out[k] * shape[k])
    return tuple(out)


def _overlaps(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether two positions (stride-0 axes aside) can be the same element, conservatively."""
    reach = 0
    wide = [(s, n) for n, s in zip(shape, strides, strict=True) if n > 1 and s]
    for s, n in sorted(wide):
        if s <= reach:
            return True
        reach += s * (n - 1)
    return False


def owns_its_storage(tensor: torch.Tensor) -> bool:
    """Whether the tensor is row-major and all of its storage: no view of something larger."""
    return (
        tensor.storage_offset() == 0
        and tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
        and closed(tensor.shape, tensor.stride()) == offsets.row_major(tuple(tensor.shape))
    )
