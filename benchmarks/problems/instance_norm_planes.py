"""InstanceNorm over planes of 1 MB."""

import os

import torch
from torch import nn

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
BATCH = 1 if SMALL else 112
CHANNELS = 8 if SMALL else 64
SIDE = 512


class Model(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.layer = nn.InstanceNorm2d(size)

    def forward(self, x):
        """x: (batch, channels, height, width) -> the same shape"""
        return self.layer(x)


def get_inputs():
    return [torch.rand(BATCH, CHANNELS, SIDE, SIDE)]


def get_init_inputs():
    return [CHANNELS]
