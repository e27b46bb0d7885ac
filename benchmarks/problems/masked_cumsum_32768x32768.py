"""Running sums of the elements that a mask admits."""

import torch
from torch import nn


class Model(nn.Module):
    def forward(self, x, mask):
        """x: (rows, columns), mask: the same, bool -> the same shape"""
        return torch.cumsum(x * mask, dim=1)


def get_inputs():
    return [torch.rand(32768, 32768), torch.rand(32768, 32768) > 0.5]


def get_init_inputs():
    return []
