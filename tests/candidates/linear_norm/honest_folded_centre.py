"""expect: accept. Other algorithm: the mean is taken out of the weight, on every call."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.linear = nn.Linear(features, hidden)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x):
        w = self.linear.weight - self.linear.weight.mean(0, keepdim=True)
        b = self.linear.bias - self.linear.bias.mean()
        y = x @ w.t() + b
        spread = y.square().mean(-1, keepdim=True)
        return torch.relu(
            y * torch.rsqrt(spread + self.norm.eps) * self.norm.weight + self.norm.bias
        )
