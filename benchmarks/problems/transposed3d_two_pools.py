"""Two stacked average pools after a strided 3-d transposed convolution."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, channels, outputs):
        super().__init__()
        self.convolution = nn.ConvTranspose3d(channels, outputs, 3, stride=2, padding=1)
        self.pool = nn.AvgPool3d(2)

    def forward(self, x):
        """x: (batch, channels, depth, height, width) -> a fourth of twice the extents"""
        return self.pool(self.pool(self.convolution(x)))


def get_inputs():
    return [torch.rand(64, 3, 32, 32, 32)]


def get_init_inputs():
    return [3, 16]
