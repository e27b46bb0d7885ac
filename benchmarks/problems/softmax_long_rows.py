"""Softmax over rows of 1.5 MB."""

import os

import torch
from torch import nn

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
ROWS = 8 if SMALL else 4096
COLUMNS = 393216


class Model(nn.Module):
    def forward(self, x):
        """x: (rows, columns) -> the same shape"""
        return torch.softmax(x, dim=1)


def get_inputs():
    return [torch.rand(ROWS, COLUMNS)]


def get_init_inputs():
    return []
