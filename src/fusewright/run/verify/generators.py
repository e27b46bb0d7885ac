"""The generators that a user's file may draw from: torch's, Python's and NumPy's."""

import hashlib
import random

import numpy as np
import torch


def seed(number: int) -> None:
    """Seed all of them."""
    torch.manual_seed(number)
    random.seed(number)
    np.random.seed(number)


def digest(device: torch.device) -> str:
    """A digest of the states of all of them."""
    states = [torch.get_rng_state()]
    states += [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    others = repr((random.getstate(), np.random.get_state(legacy=False)))
    return hashlib.sha256(
        b"".join(s.numpy().tobytes() for s in states) + others.encode()
    ).hexdigest()
