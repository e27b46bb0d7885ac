"""A linear layer whose output is used twice: through a scaled sigmoid and as a residual."""

import os

import torch
from torch import nn

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
BATCH = 256 if SMALL else 1024
INPUT_SIZE = 1024 if SMALL else 8192
HIDDEN_SIZE = 1024 if SMALL else 8192
SCALING_FACTOR = 2.0


class Model(nn.Module):
    def __init__(self, input_size, hidden_size, scaling_factor):
        super().__init__()
        self.gemm = nn.Linear(input_size, hidden_size)
        self.scaling_factor = scaling_factor

    def forward(self, x):
        """x: (batch, input_size) -> (batch, hidden_size)"""
        g = self.gemm(x)
        return torch.sigmoid(g) * self.scaling_factor + g


def get_inputs():
    return [torch.rand(BATCH, INPUT_SIZE)]


def get_init_inputs():
    return [INPUT_SIZE, HIDDEN_SIZE, SCALING_FACTOR]
