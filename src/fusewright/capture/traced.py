"""What torch.export cannot trace as it is written (torch 2.13), traced in other words.

Everything here holds while a module is exported and is undone after it. What the operators mean
is in `aten_*.py`.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.modules import batchnorm
from torch.overrides import TorchFunctionMode

from fusewright.errors import CaptureError


@contextmanager
def traced() -> Iterator[None]:
    """While it lasts, forward can be traced where torch alone cannot."""
    with _Traced(), _unchecked_distributions(), _counts_as_numbers():
        yield


@contextmanager
def _unchecked_distributions() -> Iterator[None]:
    """torch.distributions do not look at the values of their arguments."""
    distribution = torch.distributions.Distribution
    before = distribution._validate_args
    distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        distribution.set_default_validate_args(before)


@contextmanager
def _counts_as_numbers() -> Iterator[None]:
    """nn.BatchNorm(momentum=None) takes its count of batches by item(), not by float()."""
    batchnorm.__dict__["float"] = lambda x: x.item() if isinstance(x, torch.Tensor) else float(x)
    try:
        yield
    finally:
        del batchnorm.__dict__["float"]


class _Traced(TorchFunctionMode):
    """Calls traced operators in the place of what torch does not trace.

    `x.data` looks like a constant; a number that is computed at run time is refused as a position
    to write to and as a batch norm's momentum; one loss branches on the values of an argument.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func == _READ_DATA:
            return args[0].detach()
        if func == _ASSIGN_DATA:
            return _assign_data(*args)
        if func == torch.Tensor.__setitem__ and _has_positions(args[1]):
            return _write_at(*args)
        if func is F.batch_norm and isinstance(kwargs.get("momentum"), torch.SymFloat):
            return _averaging_batch_norm(*args, **kwargs)
        if func is F.gaussian_nll_loss and isinstance(args[2], torch.Tensor):
            return _gaussian_nll_loss(*args, **kwargs)
        return func(*args, **kwargs)


_READ_DATA = torch.Tensor.data.__get__  # type: ignore[attr-defined]
_ASSIGN_DATA = torch.Tensor.data.__set__  # type: ignore[attr-defined]


def _assign_data(into: torch.Tensor, value: torch.Tensor) -> None:
    if (into.shape, into.dtype) != (value.shape, value.dtype):
        raise CaptureError("forward assigns .data of another shape or dtype")
    into.detach().copy_(value)


def _has_positions(index: Any) -> bool:
    """Whether an index holds positions that only a run knows, and else no tensor and no list."""
    items = _items(index)
    others = any(isinstance(i, torch.Tensor | list) and not _is_position(i) for i in items)
    return not others and any(_is_position(i) for i in items)


def _is_position(item: Any) -> bool:
    if not isinstance(item, torch.Tensor):
        return isinstance(item, torch.SymInt)
    integers = (torch.int8, torch.int16, torch.int32, torch.int64)
    return not item.ndim and item.dtype in integers


def _items(index: Any) -> tuple[Any, ...]:
    return index if isinstance(index, tuple) else (index,)


def _write_at(into: torch.Tensor, index: Any, value: Any) -> None:
    """`into[index] = value` for an index with positions."""
    place = _place(into, _items(index))
    if not isinstance(value, torch.Tensor):
        place.fill_(value)
        return
    # Leading axes of extent one may be more than the place has.
    extra = max(value.ndim - place.ndim, 0)
    place.copy_(value.reshape(value.shape[extra:]))


def _place(into: torch.Tensor, items: tuple[Any, ...]) -> torch.Tensor:
    """The view `into[items]`: whole axes first where positions stand, of which each is selected."""
    place = into[tuple(slice(None) if _is_position(i) else i for i in items)]
    dots = next((k for k, i in enumerate(items) if i is ...), len(items))
    for k in reversed([k for k, i in enumerate(items) if _is_position(i)]):
        behind = [i for i in items[k + 1 :] if not _is_position(i)]
        axis = _axes(items[:k]) if k < dots else place.ndim - 1 - _axes(behind)
        at = items[k]
        number: Any = at.item() if isinstance(at, torch.Tensor) else at
        place = place.select(axis, number)
    return place


def _axes(items: Iterable[Any]) -> int:
    """How many axes these items leave to the indexed tensor."""
    return sum(not isinstance(i, int) for i in items)


def _averaging_batch_norm(
    x: torch.Tensor,
    mean: torch.Tensor,
    var: torch.Tensor,
    *,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    training: bool,
    momentum: Any,
    eps: float,
) -> torch.Tensor:
    """F.batch_norm that mixes the batch's statistics into the running ones by a traced number."""
    batch = (torch.zeros_like(mean), torch.zeros_like(var))
    y = F.batch_norm(x, *batch, weight=weight, bias=bias, training=training, momentum=1.0, eps=eps)
    for running, new in zip((mean, var), batch):
        running.mul_(1 - momentum).add_(new * momentum)
    return y


def _gaussian_nll_loss(
    x: torch.Tensor,
    target: torch.Tensor,
    var: torch.Tensor,
    *,
    full: bool,
    eps: float,
    reduction: str,
) -> torch.Tensor:
    """F.gaussian_nll_loss without the branch that refuses negative variances."""
    torch.ops.aten._assert_async.msg((var >= 0).all(), "var has negative entry/entries")
    spread = var.unsqueeze(-1) if var.ndim < x.ndim else var
    spread = spread.clamp(min=eps)
    loss = 0.5 * (torch.log(spread) + (x - target) ** 2 / spread)
    if full:
        loss = loss + 0.5 * math.log(2 * math.pi)
    return {"mean": loss.mean, "sum": loss.sum, "none": loss.clone}[reduction]()
