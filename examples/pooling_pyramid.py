"""Pools of several kinds and sizes, padded to one size and concatenated."""

import os

import torch
import torch.nn.functional as F
from torch import nn

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
BATCH = 2 if SMALL else 32
CHANNELS = 3 if SMALL else 64
SIDE = 18 if SMALL else 130


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.largest = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.mean = nn.AvgPool2d(kernel_size=2, stride=2)
        self.edge_mean = nn.AvgPool2d(
            3, stride=2, padding=1, ceil_mode=True, count_include_pad=False
        )
        self.dilated = nn.MaxPool2d(kernel_size=2, stride=2, dilation=2, ceil_mode=True)

    def forward(self, x):
        """x: (batch, channels, side, side) -> (map (batch, 4 channels, ...), vector)"""
        side = x.size(-1) // 2 + 1
        pools = [self.largest(x), self.mean(x), self.edge_mean(x), self.dilated(x)]
        padded = [F.pad(pool, (0, side - pool.size(-1), 0, side - pool.size(-2))) for pool in pools]
        pyramid = torch.cat(padded, dim=1)
        coarse = [F.adaptive_avg_pool2d(x, size).flatten(1) for size in (1, 3, (2, 5))]
        coarse.append(F.adaptive_max_pool2d(x, 4).flatten(1))
        return F.pad(pyramid, (1, 1, 1, 1), mode="reflect"), torch.cat(coarse, dim=1)


def get_inputs():
    return [torch.randn(BATCH, CHANNELS, SIDE, SIDE)]


def get_init_inputs():
    return []
