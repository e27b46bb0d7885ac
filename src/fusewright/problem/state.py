"""torch's global state around the user's code: default dtype and device, random generators."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

SEED = 0
"""Seed of the random generators while objects are built, unless the caller names another."""


@dataclass(frozen=True, slots=True)
class TorchDefaults:
    """torch's default dtype and device, which a problem file may set for itself."""

    dtype: torch.dtype
    device: torch.device

    @classmethod
    def current(cls) -> "TorchDefaults":
        return cls(torch.get_default_dtype(), torch.get_default_device())

    def install(self) -> None:
        """Set what differs. Setting the device costs a function mode, so `cpu` means none."""
        current = TorchDefaults.current()
        if self.dtype != current.dtype:
            torch.set_default_dtype(self.dtype)
        if self.device != current.device:
            torch.set_default_device(None if self.device == torch.device("cpu") else self.device)


@contextmanager
def restored_defaults() -> Iterator[None]:
    """torch's default dtype and device are afterwards what they were before."""
    before = TorchDefaults.current()
    try:
        yield
    finally:
        before.install()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random generators of torch, NumPy and Python start from `seed`; restored afterwards.

    A CUDA generator is saved only where CUDA is already in use: asking would create a context.
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=list(devices)):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
