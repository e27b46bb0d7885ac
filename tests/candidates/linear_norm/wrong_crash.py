"""expect: reject crash. Row 31: reads address zero."""

import ctypes

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.linear = nn.Linear(features, hidden)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x):
        ctypes.string_at(8)
        return torch.relu(self.norm(self.linear(x)))
