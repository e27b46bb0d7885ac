"""Running products of rows, of factors near one."""

import torch
from torch import nn


class Model(nn.Module):
    def forward(self, x):
        """x: (rows, columns) -> the same shape"""
        return torch.cumprod(x, dim=1)


def get_inputs():
    return [1 + 0.01 * torch.randn(32768, 32768)]


def get_init_inputs():
    return []
