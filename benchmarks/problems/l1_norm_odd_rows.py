"""Division by the mean magnitude of a row; no vector access divides a row."""

import os

import torch
from torch import nn

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
ROWS = 16 if SMALL else 32768
COLUMNS = 65535


class Model(nn.Module):
    def forward(self, x):
        """x: (rows, columns) -> the same shape"""
        return x / torch.mean(torch.abs(x), dim=1, keepdim=True)


def get_inputs():
    return [torch.rand(ROWS, COLUMNS)]


def get_init_inputs():
    return []
