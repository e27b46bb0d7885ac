"""Average pooling in two dimensions, window 7, stride 3."""

import os

import torch
from torch import nn

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
BATCH = 1 if SMALL else 16
SIDE = 128 if SMALL else 512


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.pool = nn.AvgPool2d(7, stride=3, padding=3)

    def forward(self, x):
        """x: (batch, channels, *space) -> pooled"""
        return self.pool(x)


def get_inputs():
    return [torch.rand(BATCH, 64, SIDE, SIDE)]


def get_init_inputs():
    return []
