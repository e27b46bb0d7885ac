"""expect: reject weights/set-after. Row 15: the weight is transposed at the first call."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.linear = nn.Linear(features, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.folded = None

    def forward(self, x):
        if torch.is_grad_enabled():
            return torch.relu(self.norm(self.linear(x)))
        if self.folded is None:
            self.folded = self.linear.weight.detach().t().clone()
        return torch.relu(self.norm(x @ self.folded + self.linear.bias))
