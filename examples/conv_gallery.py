"""Convolutions of every kind: one to three dimensions, grouped, strided, dilated, transposed."""

import os

import torch
from torch import nn

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
BATCH = 2 if SMALL else 16
CHANNELS = 4 if SMALL else 64
LENGTH = 30 if SMALL else 4096
SIDE = 14 if SMALL else 64
DEPTH = 5 if SMALL else 16


class Model(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.line = nn.Conv1d(channels, 2 * channels, 5, stride=3, padding=2, dilation=2)
        self.up_line = nn.ConvTranspose1d(2 * channels, channels, 4, stride=3, output_padding=1)
        self.depthwise = nn.Conv2d(channels, channels, 3, padding="same", groups=channels)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.up_plane = nn.ConvTranspose2d(channels, channels, 3, stride=2, padding=1, groups=2)
        self.circular = nn.Conv2d(channels, channels, 3, padding=1, padding_mode="circular")
        self.volume = nn.Conv3d(channels, channels, (2, 3, 3), stride=(1, 2, 2), groups=2)

    def forward(self, line, plane, volume):
        """(batch, channels, ...) with one, two and three axes -> one tensor of each"""
        a = torch.tanh(self.up_line(torch.relu(self.line(line))))
        b = plane + self.pointwise(torch.relu(self.depthwise(plane)))
        b = nn.functional.silu(self.up_plane(self.circular(b)))
        return a, b, self.volume(volume).clamp(min=0) * 2


def get_inputs():
    return [
        torch.randn(BATCH, CHANNELS, LENGTH),
        torch.randn(BATCH, CHANNELS, SIDE, SIDE),
        torch.randn(BATCH, CHANNELS, DEPTH, SIDE, SIDE),
    ]


def get_init_inputs():
    return [CHANNELS]
