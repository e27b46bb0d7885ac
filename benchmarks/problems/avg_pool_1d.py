"""Average pooling in one dimension, window 8, stride 1."""

import os

import torch
from torch import nn

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
BATCH = 1 if SMALL else 32
LENGTH = 8192 if SMALL else 65536


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.pool = nn.AvgPool1d(8, stride=1, padding=4)

    def forward(self, x):
        """x: (batch, channels, *space) -> pooled"""
        return self.pool(x)


def get_inputs():
    return [torch.rand(BATCH, 128, LENGTH)]


def get_init_inputs():
    return []
