"""Sums of rows of 32768 elements in bfloat16."""

import os

import torch
from torch import nn

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
ROWS = 128 if SMALL else 32768


class Model(nn.Module):
    def forward(self, x):
        """x: (rows, columns) -> (rows,)"""
        return torch.sum(x, dim=1)


def get_inputs():
    return [torch.randn(ROWS, 32768, dtype=torch.bfloat16)]


def get_init_inputs():
    return []
