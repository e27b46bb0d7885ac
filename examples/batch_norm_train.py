"""Convolution, batch normalisation and ReLU in training mode.

The statistics are those of the batch, and the running ones are updated in place.
"""

import os

import torch
from torch import nn

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
BATCH = 4 if SMALL else 64
IN_CHANNELS = 6 if SMALL else 64
OUT_CHANNELS = 16 if SMALL else 128
SIDE = 15 if SMALL else 56


class Model(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
        self.norm = nn.BatchNorm2d(out_channels, momentum=0.05)

    def forward(self, x):
        """x: (batch, in_channels, side, side) -> (batch, out_channels, side, side)"""
        return torch.relu(self.norm(self.conv(x)))


def get_inputs():
    return [torch.randn(BATCH, IN_CHANNELS, SIDE, SIDE)]


def get_init_inputs():
    return [IN_CHANNELS, OUT_CHANNELS]
