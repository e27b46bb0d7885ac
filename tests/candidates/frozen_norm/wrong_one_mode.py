"""expect: reject values/given|buffers. Row 33: the whole module is put in training mode."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width)
        self.register_buffer("length", torch.ones(width) / width**0.5)

    def forward(self, x):
        self.length.div_(self.length.norm())
        return self.norm(self.linear(x)) * self.length
