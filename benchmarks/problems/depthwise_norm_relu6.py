"""A strided depthwise convolution between batch norms in eval mode, as in MobileNet."""

import os

import torch
from torch import nn

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
BATCH = 1 if SMALL else 64
SIDE = 64 if SMALL else 224


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.before, self.after = nn.BatchNorm2d(96), nn.BatchNorm2d(96)
        self.conv = nn.Conv2d(96, 96, 3, stride=2, padding=1, groups=96, bias=False)
        self.act = nn.ReLU6()
        self.eval()

    def forward(self, x):
        """x: (batch, channels, *space) -> the same kind"""
        return self.act(self.after(self.conv(self.act(self.before(x)))))


def get_inputs():
    return [torch.rand(BATCH, 96, SIDE, SIDE)]


def get_init_inputs():
    return []
