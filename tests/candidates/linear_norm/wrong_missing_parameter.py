"""expect: reject state-dict. Row 14: the bias of the norm does not exist."""

import torch
import torch.nn.functional as F
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.linear = nn.Linear(features, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.norm.bias = None

    def forward(self, x):
        return torch.relu(F.layer_norm(self.linear(x), (32,), self.norm.weight))
