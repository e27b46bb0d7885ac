"""expect: reject random-state. Reseeds the global generator on every call."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.linear = nn.Linear(features, hidden)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x):
        torch.manual_seed(0)
        return torch.relu(self.norm(self.linear(x)))
