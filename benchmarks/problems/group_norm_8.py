"""GroupNorm of 8 groups, 8 MB each."""

import os

import torch
from torch import nn

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
BATCH = 2 if SMALL else 112
SIDE = 64 if SMALL else 512


class Model(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.layer = nn.GroupNorm(8, size)

    def forward(self, x):
        """x: (batch, channels, height, width) -> the same shape"""
        return self.layer(x)


def get_inputs():
    return [torch.rand(BATCH, 64, SIDE, SIDE)]


def get_init_inputs():
    return [64]
