"""expect: reject precision. Row 16: float16 operands."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.linear = nn.Linear(features, hidden)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x):
        y = x.half() @ self.linear.weight.half().t()
        return torch.relu(self.norm(y.float() + self.linear.bias))
