"""expect: reject buffers. Row 33: the buffer changes where the reference writes what it held."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width).eval()
        self.register_buffer("length", torch.ones(width) / width**0.5)

    def forward(self, x):
        unit = self.length / self.length.norm()
        self.length.copy_(unit * 1.001)
        return self.norm(self.linear(x)) * unit
