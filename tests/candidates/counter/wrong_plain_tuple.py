"""expect: reject structure. A tuple without names."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("peak", torch.zeros(width))

    def forward(self, x):
        with torch.no_grad():
            self.calls.add_(1)
            torch.maximum(self.peak, x.abs().amax(0), out=self.peak)
        return x / (self.peak + 1), self.peak.clone()
