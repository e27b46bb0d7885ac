"""expect: reject values. The epsilon of the norm is left out."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.linear = nn.Linear(features, hidden)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x):
        y = self.linear(x)
        centred = y - y.mean(-1, keepdim=True)
        scaled = centred * torch.rsqrt(centred.square().mean(-1, keepdim=True))
        return torch.relu(scaled * self.norm.weight + self.norm.bias)
