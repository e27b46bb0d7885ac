"""expect: reject precision. Row 16: bfloat16 operands."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.linear = nn.Linear(features, hidden)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x):
        y = x.bfloat16() @ self.linear.weight.bfloat16().t()
        return torch.relu(self.norm(y.float() + self.linear.bias))
