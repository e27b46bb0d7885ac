"""expect: accept. The normalisation written out, another order of summation."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.linear = nn.Linear(features, hidden)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x):
        y = x @ self.linear.weight.t() + self.linear.bias
        centred = y - y.mean(-1, keepdim=True)
        spread = centred.square().mean(-1, keepdim=True)
        scaled = centred * torch.rsqrt(spread + self.norm.eps)
        return (scaled * self.norm.weight + self.norm.bias).clamp(min=0)
