"""Copies of a tensor in other storage: equal values, laid out as a caller may have them."""

import torch


def awkward(tensor: torch.Tensor) -> bool:
    return not tensor.is_contiguous() or tensor.storage_offset() != 0


def strided_copy(tensor: torch.Tensor) -> torch.Tensor:
    """Equal values, non-contiguous: the last axis has stride 2."""
    if tensor.ndim == 0:
        return tensor.clone()
    wide = tensor.new_zeros((*tensor.shape, 2))
    wide[..., 0] = tensor
    return wide[..., 0]


def padded_copy(tensor: torch.Tensor) -> torch.Tensor:
    """Equal values, rows further apart than they are long."""
    if tensor.ndim < 2:
        return tensor.clone()
    wide = tensor.new_zeros((*tensor.shape[:-1], tensor.shape[-1] + 3))
    wide[..., :-3] = tensor
    return wide[..., :-3]


def permuted_copy(tensor: torch.Tensor) -> torch.Tensor:
    """Equal values; in memory the channels come last, of a matrix the rows."""
    axis = 0 if tensor.ndim == 2 else 1
    if tensor.ndim < 2:
        return tensor.clone()
    return tensor.movedim(axis, -1).contiguous().movedim(-1, axis)


def misaligned_copy(tensor: torch.Tensor) -> torch.Tensor:
    """Equal values, contiguous, but one element off the allocation's alignment."""
    storage = tensor.new_empty(tensor.numel() + 1)
    view = storage[1:].view(tensor.shape)
    view.copy_(tensor)
    return view
