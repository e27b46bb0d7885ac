"""expect: reject weights|consecutive-calls. What it remembers has no effect. Row 33."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.register_buffer("last", torch.zeros(width), persistent=False)
        self.register_buffer("table", torch.arange(width) / 3, persistent=False)

    def forward(self, x):
        y = self.linear(x)
        self.last.mul_(0.9).add_(0.1 * (y.detach().mean(0) + self.last))
        return y * self.table
