"""Softmax over rows at a size for CPU benchmarks."""

import torch
from torch import nn


class Model(nn.Module):
    def forward(self, x):
        """x: (rows, columns) -> the same shape"""
        return torch.softmax(x, dim=-1)


def get_inputs():
    return [torch.randn(4096, 8192)]


def get_init_inputs():
    return []
