"""Python scalars and None among the inputs, defaults that are not passed, keyword construction."""

import os

import torch
from torch import nn

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
ROWS = 40 if SMALL else 16384
COLUMNS = 50 if SMALL else 4096


class Model(nn.Module):
    def __init__(self, columns, *, negative_slope=0.01):
        super().__init__()
        self.negative_slope = negative_slope
        self.bias = nn.Parameter(torch.randn(columns))

    def forward(self, x, alpha, repeat, residual=None, shift=None, mode="sum"):
        """x: (rows, columns), alpha: float, repeat: int -> (rows, columns), (rows,), int"""
        y = torch.add(self.bias, x, alpha=alpha)
        for _ in range(repeat):
            y = nn.functional.leaky_relu(y, self.negative_slope) + 0.25
        if residual is not None:
            y = y + residual
        if shift is not None:
            y = y + shift
        pooled = y.sum(dim=1) if mode == "sum" else y.amax(dim=1)
        return y, pooled, repeat


def get_inputs():
    return [torch.randn(ROWS, COLUMNS), 0.75, 3, None, torch.randn(COLUMNS)]


def get_init_inputs():
    return [[COLUMNS], {"negative_slope": 0.2}]
