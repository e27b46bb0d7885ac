"""expect: reject weights. The weight is worked out at the first call only."""

import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm


class ModelNew(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.linear = weight_norm(nn.Linear(features, hidden))
        self.gate = nn.Linear(hidden, hidden)
        self.weight = None

    def forward(self, x):
        if self.weight is None:
            self.weight = self.linear.weight.detach().clone()
        return torch.sigmoid(self.gate(x @ self.weight.t() + self.linear.bias))
