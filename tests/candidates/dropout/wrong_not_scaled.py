"""expect: reject random-distribution. Row 32: what is kept is not scaled up."""

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
            y = y * (torch.rand_like(y) >= self.p)
        return F.gelu(y)
