"""A causal depthwise convolution of sequences with SiLU behind it, as in Mamba."""

import os

import torch
from torch import nn

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
BATCH = 1 if SMALL else 32
SIDE = 64 if SMALL else 4096


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(2048, 2048, 4, padding=3, groups=2048)
        self.act = nn.SiLU()

    def forward(self, x):
        """x: (batch, channels, *space) -> the same kind"""
        return self.act(self.conv(x)[..., :SIDE])


def get_inputs():
    return [torch.rand(BATCH, 2048, SIDE)]


def get_init_inputs():
    return []
