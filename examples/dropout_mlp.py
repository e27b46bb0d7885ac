"""A two-layer perceptron with dropout in training mode: the random mask must be eager's own."""

import os

import torch
from torch import nn

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
BATCH = 64 if SMALL else 8192
WIDTH = 128 if SMALL else 2048
HIDDEN = 320 if SMALL else 8192
RATE = 0.1


class Model(nn.Module):
    def __init__(self, width, hidden, rate):
        super().__init__()
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(rate)

    def forward(self, x):
        """x: (batch, width) -> the same shape"""
        h = self.dropout(nn.functional.gelu(self.up(x)))
        return x + self.dropout(self.down(h))


def get_inputs():
    return [torch.randn(BATCH, WIDTH)]


def get_init_inputs():
    return [WIDTH, HIDDEN, RATE]
