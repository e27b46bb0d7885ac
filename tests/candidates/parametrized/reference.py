"""A parametrized weight: what the layer multiplies by is no entry of the state."""

import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm


class Model(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.linear = weight_norm(nn.Linear(features, hidden))
        self.gate = nn.Linear(hidden, hidden)

    def forward(self, x):
        return torch.sigmoid(self.gate(self.linear(x)))


def get_inputs():
    return [torch.randn(7, 12)]


def get_init_inputs():
    return [12, 8]
