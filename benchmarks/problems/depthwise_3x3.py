"""A depthwise convolution, 3 x 3, padded."""

import os

import torch
from torch import nn

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
BATCH = 1 if SMALL else 16
SIDE = 64 if SMALL else 512


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(64, 64, 3, padding=1, groups=64, bias=False)

    def forward(self, x):
        """x: (batch, channels, *space) -> the same kind"""
        return self.conv(x)


def get_inputs():
    return [torch.rand(BATCH, 64, SIDE, SIDE)]


def get_init_inputs():
    return []
