"""expect: reject random-distribution. Row 32: the same mask in every call."""

import torch
import torch.nn.functional as F
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, features, hidden, p):
        super().__init__()
        self.linear = nn.Linear(features, hidden)
        self.p = p

    def forward(self, x):
        y = self.linear(x)
        if self.training:
            generator = torch.Generator().manual_seed(1)
            y = y * (torch.rand(y.shape, generator=generator) >= self.p) / (1 - self.p)
        return F.gelu(y)
