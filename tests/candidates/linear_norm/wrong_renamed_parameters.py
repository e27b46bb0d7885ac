"""expect: reject state-dict. Row 14: other names, so that a checkpoint does not load."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.linear = nn.Linear(features, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.fc = self.linear
        del self.linear

    def forward(self, x):
        return torch.relu(self.norm(self.fc(x)))
