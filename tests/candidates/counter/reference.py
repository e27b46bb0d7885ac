"""Buffers that every call updates, and an output with names."""

from typing import NamedTuple

import torch
from torch import nn


class Result(NamedTuple):
    scaled: torch.Tensor
    peak: torch.Tensor


class Model(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("peak", torch.zeros(width))

    def forward(self, x):
        self.calls += 1
        self.peak = torch.maximum(self.peak, x.detach().abs().amax(0))
        return Result(x / (self.peak + 1), self.peak.clone())


def get_inputs():
    return [torch.randn(6, 9)]


def get_init_inputs():
    return [9]
