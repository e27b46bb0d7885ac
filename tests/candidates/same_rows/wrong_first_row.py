"""expect: reject stale-inputs|values. Row 12: the first row for all."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width))

    def forward(self, x):
        return torch.sigmoid(x[:1] * self.weight).cumsum(dim=1).expand(x.shape[0], -1).clone()
