"""Linear, LayerNorm, ReLU: a contraction, a reduction, affine parameters that start at 1 and 0."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.linear = nn.Linear(features, hidden)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x):
        return torch.relu(self.norm(self.linear(x)))


def get_inputs():
    return [torch.rand(12, 40)]


def get_init_inputs():
    return [40, 32]
