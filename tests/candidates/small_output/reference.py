"""The mean of a normalised tensor: nearly zero until the affine parameters are changed."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm = nn.GroupNorm(2, channels)

    def forward(self, x):
        return self.norm(x).mean(dim=(1, 2))


def get_inputs():
    return [torch.randn(5, 4, 30)]


def get_init_inputs():
    return [4]
