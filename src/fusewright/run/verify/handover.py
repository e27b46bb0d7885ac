"""Large CUDA tensors from one process to another without a copy: lent, borrowed, given back.

The owner keeps what it lends until it is told that nobody needs it; the borrower maps the same
memory and copies what it wants to keep. Only torch's storage handles travel, as JSON. Where two
processes cannot share device memory (some containers forbid it), tensors go through files.
"""

import base64
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from fusewright.run.verify.specs import Spec

# Below this a file is as good, and outlives its process.
LEAST_BYTES = 32 << 20
_PROBE = 1 << 10
_FIELDS = ("device", "handle", "size", "offset", "counter", "counter_at", "event", "event_sync")

Share = Callable[[torch.Tensor], tuple[Any, ...]]
Open = Callable[..., torch.Tensor]


def share_storage(tensor: torch.Tensor) -> tuple[Any, ...]:
    """The handle of a CUDA tensor's storage, in the order of _FIELDS."""
    return tensor.untyped_storage()._share_cuda_()


def open_storage(handle: tuple[Any, ...], offset: int, dtype: torch.dtype, shape: list[int]):
    """A tensor in another process's storage. Raises RuntimeError where that cannot be mapped."""
    torch.cuda.init()
    storage = torch.UntypedStorage._new_shared_cuda(*handle)
    empty = torch.empty(0, dtype=dtype, device=storage.device)
    return empty.set_(storage, offset, shape, torch.empty(shape, device="meta").stride())


@dataclass(slots=True)
class Lender:
    """What one process has lent, by key. Mutable."""

    active: bool = False
    share: Share = share_storage
    open: Open = open_storage
    lent: dict[int, torch.Tensor] = field(default_factory=dict)
    count: int = 0

    def takes(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is lent rather than written to a file."""
        large = tensor.numel() * tensor.element_size() >= LEAST_BYTES
        return self.active and large and tensor.device.type != "cpu"

    def lend(self, tensor: torch.Tensor) -> Spec:
        """What a borrower needs to see the tensor's elements in row-major order."""
        kept = tensor.detach().resolve_conj().resolve_neg().contiguous()
        if kept.device.type == "cuda":
            torch.cuda.synchronize(kept.device)
        self.count += 1
        self.lent[self.count] = kept
        handle = dict(zip(_FIELDS, map(_encoded, self.share(kept)), strict=True))
        return {"key": self.count, "owner": os.getpid(), "at": kept.storage_offset()} | handle

    def borrow(self, spec: Spec) -> torch.Tensor:
        """The tensor of a spec that was lent: the very one in its owner's process, else a mapping.

        To be read only, and to be dropped before its owner is told that it is not needed."""
        loan = spec["lent"]
        if loan["owner"] == os.getpid():
            return self.lent[loan["key"]]
        handle = tuple(_decoded(loan[name]) for name in _FIELDS)
        return self.open(handle, loan["at"], getattr(torch, spec["dtype"]), spec["shape"])

    def take_back(self, keys: list[int]) -> None:
        for key in keys:
            self.lent.pop(key, None)
        if torch.cuda.is_initialized():
            torch.cuda.ipc_collect()


def _encoded(value: Any) -> Any:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _decoded(value: Any) -> Any:
    return base64.b64decode(value) if isinstance(value, str) else value


def offer(lender: Lender, device: str) -> Spec | None:
    """A small tensor lent to learn whether the other process can borrow; None on the CPU, and where
    device memory cannot be shared."""
    if not device.startswith("cuda"):
        return None
    probe = torch.arange(_PROBE, device=device, dtype=torch.float32)
    try:
        loan = lender.lend(probe)
    except RuntimeError:
        return None
    return {"dtype": "float32", "shape": [_PROBE], "lent": loan}


def accept(lender: Lender, spec: Spec) -> str:
    """Why the offered tensor cannot be borrowed; empty, and lending is on from now, if it can."""
    try:
        total = float(lender.borrow(spec).sum())
    except RuntimeError as error:
        return str(error).splitlines()[0]
    lender.active = total == _PROBE * (_PROBE - 1) / 2
    return "" if lender.active else "the borrowed tensor has other values"
