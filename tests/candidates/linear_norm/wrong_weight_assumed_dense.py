"""expect: reject weights/strided. Reads the weight's memory row by row."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.linear = nn.Linear(features, hidden)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x):
        weight = self.linear.weight
        if not torch.is_grad_enabled():
            weight = weight.as_strided(weight.shape, (weight.shape[1], 1))
        return torch.relu(self.norm(x @ weight.t() + self.linear.bias))
