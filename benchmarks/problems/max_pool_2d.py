"""Max pooling in two dimensions, window 4, stride 1."""

import os

import torch
from torch import nn

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
BATCH = 1 if SMALL else 16
SIDE = 128 if SMALL else 512


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.pool = nn.MaxPool2d(4, stride=1, padding=1)

    def forward(self, x):
        """x: (batch, channels, *space) -> pooled"""
        return self.pool(x)


def get_inputs():
    return [torch.rand(BATCH, 64, SIDE, SIDE)]


def get_init_inputs():
    return []
