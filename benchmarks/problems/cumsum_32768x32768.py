"""Running sums of rows."""

import torch
from torch import nn


class Model(nn.Module):
    def forward(self, x):
        """x: (rows, columns) -> the same shape"""
        return torch.cumsum(x, dim=1)


def get_inputs():
    return [torch.rand(32768, 32768)]


def get_init_inputs():
    return []
