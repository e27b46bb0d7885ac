"""expect: reject weights/replaced.

Row 15: keeps the tensor that the parameter was at the first call.
"""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.linear = nn.Linear(features, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.kept = None

    def forward(self, x):
        if torch.is_grad_enabled():
            return torch.relu(self.norm(self.linear(x)))
        if self.kept is None:
            self.kept = self.linear.weight.detach()
        return torch.relu(self.norm(x @ self.kept.t() + self.linear.bias))
