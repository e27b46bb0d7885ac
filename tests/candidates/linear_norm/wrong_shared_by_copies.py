"""expect: reject deepcopy. Copies share the weights of the original."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.linear = nn.Linear(features, hidden)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x):
        return torch.relu(self.norm(self.linear(x)))

    def __deepcopy__(self, memo):
        return self
