"""A depthwise convolution, 7 x 7, padded, with bias, as in ConvNeXt."""

import os

import torch
from torch import nn

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
BATCH = 1 if SMALL else 64
SIDE = 64 if SMALL else 192


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(96, 96, 7, padding=3, groups=96)

    def forward(self, x):
        """x: (batch, channels, *space) -> the same kind"""
        return self.conv(x)


def get_inputs():
    return [torch.rand(BATCH, 96, SIDE, SIDE)]


def get_init_inputs():
    return []
