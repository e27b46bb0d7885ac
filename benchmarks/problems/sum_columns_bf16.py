"""Sums over the middle axis in bfloat16."""

import os

import torch
from torch import nn

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
BATCH = 8 if SMALL else 128


class Model(nn.Module):
    def forward(self, x):
        """x: (batch, rows, columns) -> (batch, columns)"""
        return torch.sum(x, dim=1)


def get_inputs():
    return [torch.randn(BATCH, 4096, 2048, dtype=torch.bfloat16)]


def get_init_inputs():
    return []
