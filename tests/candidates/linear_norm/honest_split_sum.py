"""expect: accept. The contraction in three pieces, added back to front."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.linear = nn.Linear(features, hidden)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x):
        w = self.linear.weight
        y = self.linear.bias + x[:, 30:] @ w[:, 30:].t()
        y = y + x[:, 13:30] @ w[:, 13:30].t() + x[:, :13] @ w[:, :13].t()
        return torch.relu(self.norm(y))
