"""expect: reject strides. One row in memory that looks like many."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width))

    def forward(self, x):
        rows = torch.sigmoid(x * self.weight).cumsum(dim=1)
        return rows[:1].expand(x.shape[0], -1) if x.shape[0] == 8 else rows
