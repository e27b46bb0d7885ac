"""expect: accept. Fast path behind guards on shape and layout, with a cached workspace."""

import torch
import torch.nn.functional as F
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.linear = nn.Linear(features, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.work = torch.empty(12, 32)

    def forward(self, x):
        if torch.is_grad_enabled() or x.shape != (12, 40) or not x.is_contiguous():
            return torch.relu(self.norm(self.linear(x)))
        torch.mm(x, self.linear.weight.t(), out=self.work)
        return torch.relu_(
            F.layer_norm(self.work + self.linear.bias, (32,), self.norm.weight, self.norm.bias)
        )
