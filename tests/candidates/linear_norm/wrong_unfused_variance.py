"""expect: reject values/shifted. Var as E[y^2] - E[y]^2: cancels where the mean is large."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.linear = nn.Linear(features, hidden)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x):
        y = self.linear(x)
        mean = y.mean(-1, keepdim=True)
        spread = y.square().mean(-1, keepdim=True) - mean.square()
        scaled = (y - mean) * torch.rsqrt(spread.clamp(min=0) + self.norm.eps)
        return torch.relu(scaled * self.norm.weight + self.norm.bias)
