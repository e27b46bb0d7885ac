"""A sigmoid of 1.6 billion elements: nothing but memory traffic, 6.4 GB each way at full scale."""

import os

import torch
from torch import nn

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
ROWS = 1024 if SMALL else 4096
COLUMNS = 4096 if SMALL else 393216


class Model(nn.Module):
    def forward(self, x):
        """x: (rows, columns) -> the same shape"""
        return torch.sigmoid(x)


def get_inputs():
    return [torch.rand(ROWS, COLUMNS)]


def get_init_inputs():
    return []
