"""expect: accept. The weight from its direction and its magnitude."""

import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm


class ModelNew(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.linear = weight_norm(nn.Linear(features, hidden))
        self.gate = nn.Linear(hidden, hidden)

    def forward(self, x):
        parts = self.linear.parametrizations.weight
        weight = parts.original0 * parts.original1 / parts.original1.norm(dim=1, keepdim=True)
        return torch.sigmoid(self.gate(x @ weight.t() + self.linear.bias))
