"""One convolution of 1152 terms: the sum itself is all the error."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        return self.conv(x)


def get_inputs():
    return [torch.rand(4, 128, 8, 8)]


def get_init_inputs():
    return [128]
