"""expect: reject aliasing. Returns the buffer itself: the caller's result changes later."""

from typing import NamedTuple

import torch
from torch import nn


class Result(NamedTuple):
    scaled: torch.Tensor
    peak: torch.Tensor


class ModelNew(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("peak", torch.zeros(width))

    def forward(self, x):
        with torch.no_grad():
            self.calls.add_(1)
            torch.maximum(self.peak, x.abs().amax(0), out=self.peak)
        return Result(x / (self.peak + 1), self.peak)
