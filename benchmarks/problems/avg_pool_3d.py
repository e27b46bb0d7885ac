"""Average pooling in three dimensions, window 3, stride 2."""

import os

import torch
from torch import nn

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
BATCH = 1 if SMALL else 8
SIDE = 32 if SMALL else 128


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.pool = nn.AvgPool3d(3, stride=2, padding=1)

    def forward(self, x):
        """x: (batch, channels, *space) -> pooled"""
        return self.pool(x)


def get_inputs():
    return [torch.rand(BATCH, 16, SIDE, SIDE, SIDE)]


def get_init_inputs():
    return []
