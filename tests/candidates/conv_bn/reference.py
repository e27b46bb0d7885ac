"""Convolution, batch normalisation in training mode, ReLU, average pooling."""

import torch
import torch.nn.functional as F
from torch import nn


class Model(nn.Module):
    def __init__(self, channels, filters):
        super().__init__()
        self.conv = nn.Conv2d(channels, filters, 3, padding=1)
        self.bn = nn.BatchNorm2d(filters)

    def forward(self, x):
        return F.avg_pool2d(torch.relu(self.bn(self.conv(x))), 2)


def get_inputs():
    return [torch.randn(4, 3, 8, 10)]


def get_init_inputs():
    return [3, 6]
