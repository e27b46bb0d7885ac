"""LayerNorm over a few rows of millions of elements."""

import os

import torch
from torch import nn

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
SHAPE = (64, 32, 32) if SMALL else (64, 256, 256)


class Model(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.layer = nn.LayerNorm(size)

    def forward(self, x):
        """x: (16, *size) -> the same shape"""
        return self.layer(x)


def get_inputs():
    return [torch.rand(16, *SHAPE)]


def get_init_inputs():
    return [SHAPE]
