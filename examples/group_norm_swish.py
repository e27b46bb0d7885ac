"""Group normalisation followed by swish, as in the blocks of diffusion models."""

import os

import torch
from torch import nn

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
BATCH = 2 if SMALL else 32
CHANNELS = 16 if SMALL else 256
GROUPS = 4 if SMALL else 32
SIDE = 17 if SMALL else 64


class Model(nn.Module):
    def __init__(self, groups, channels):
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)

    def forward(self, x):
        """x: (batch, channels, side, side) -> the same shape"""
        y = self.norm(x)
        return y * torch.sigmoid(y)


def get_inputs():
    return [torch.randn(BATCH, CHANNELS, SIDE, SIDE)]


def get_init_inputs():
    return [GROUPS, CHANNELS]
