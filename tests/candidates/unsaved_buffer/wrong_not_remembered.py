"""expect: reject consecutive-calls|weights. Each call is taken for the first one. Row 33."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.register_buffer("last", torch.zeros(width), persistent=False)
        self.register_buffer("table", torch.arange(width) / 3, persistent=False)

    def forward(self, x):
        return (self.linear(x) + self.last) * self.table
