"""Linear, dropout, GELU: random in training mode."""

import torch
import torch.nn.functional as F
from torch import nn


class Model(nn.Module):
    def __init__(self, features, hidden, p):
        super().__init__()
        self.linear = nn.Linear(features, hidden)
        self.p = p

    def forward(self, x):
        return F.gelu(F.dropout(self.linear(x), self.p, self.training))


def get_inputs():
    return [torch.randn(16, 24)]


def get_init_inputs():
    return [24, 64, 0.3]
