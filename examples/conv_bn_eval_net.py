"""A small residual network in evaluation mode: the norms are affine maps of the convolutions."""

import os

import torch
from torch import nn

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
BATCH = 2 if SMALL else 64
SIDE = 32 if SMALL else 224
WIDTHS = (8, 16, 24) if SMALL else (64, 128, 256)
CLASSES = 10 if SMALL else 1000


class Block(nn.Module):
    """Two convolutions with a shortcut; halves the sides."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride=2)

    def forward(self, x):
        y = torch.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return torch.relu(y + self.shortcut(x))


class Model(nn.Module):
    def __init__(self, widths, classes):
        super().__init__()
        self.blocks = nn.Sequential(*(Block(a, b) for a, b in zip((3, *widths[:-1]), widths)))
        self.head = nn.Linear(widths[-1], classes)
        self.eval()

    def forward(self, x):
        """x: (batch, 3, side, side) -> (batch, classes)"""
        return self.head(self.blocks(x).mean(dim=(-2, -1)))


def get_inputs():
    return [torch.randn(BATCH, 3, SIDE, SIDE)]


def get_init_inputs():
    return [WIDTHS, CLASSES]
