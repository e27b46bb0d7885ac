"""expect: accept. The buffer changes in its last bits, where the reference writes what it held."""

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
        self.length.copy_(torch.nextafter(unit, torch.full_like(unit, 2.0)))
        return self.norm(self.linear(x)) * unit
