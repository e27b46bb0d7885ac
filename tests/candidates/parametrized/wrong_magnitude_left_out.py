"""expect: reject values|weights. At first the magnitude is the direction's own norm."""

import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm


class ModelNew(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.linear = weight_norm(nn.Linear(features, hidden))
        self.gate = nn.Linear(hidden, hidden)

    def forward(self, x):
        direction = self.linear.parametrizations.weight.original1
        return torch.sigmoid(self.gate(x @ direction.t() + self.linear.bias))
