"""expect: reject weights/set-before. Row 15: the weight is transposed once, in the constructor."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.linear = nn.Linear(features, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.folded = self.linear.weight.detach().t().clone()

    def forward(self, x):
        return torch.relu(self.norm(x @ self.folded + self.linear.bias))
