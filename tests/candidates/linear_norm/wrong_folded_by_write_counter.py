"""expect: reject weights/set-after. Row 15: folds again by the counter of writes."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.linear = nn.Linear(features, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.key = None

    def forward(self, x):
        weight = self.linear.weight
        if torch.is_grad_enabled():
            return torch.relu(self.norm(self.linear(x)))
        key = (weight.data_ptr(), weight._version)
        if key != self.key:
            self.key, self.turned = key, weight.t().contiguous()
        return torch.relu(self.norm(x @ self.turned + self.linear.bias))
