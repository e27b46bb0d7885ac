"""A linear layer, a sigmoid and a sum over the features: 4.3 GB of weights at full scale."""

import os

import torch
from torch import nn

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
BATCH = 64 if SMALL else 128
INPUT_SIZE = 2048 if SMALL else 32768
HIDDEN_SIZE = 2048 if SMALL else 32768


class Model(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.linear = nn.Linear(input_size, hidden_size)

    def forward(self, x):
        """x: (batch, input_size) -> (batch, 1)"""
        x = self.linear(x)
        x = torch.sigmoid(x)
        return torch.sum(x, dim=1, keepdim=True)


def get_inputs():
    return [torch.rand(BATCH, INPUT_SIZE)]


def get_init_inputs():
    return [INPUT_SIZE, HIDDEN_SIZE]
