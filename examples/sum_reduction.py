"""A sum over the middle axis of a tensor whose rows are not aligned to 16 bytes."""

import os

import torch
from torch import nn

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
BATCH = 16 if SMALL else 128
LENGTH = 512 if SMALL else 4096
WIDTH = 511 if SMALL else 4095
DIM = 1


class Model(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.dim = dim

    def forward(self, x):
        """x: (batch, length, width) -> (batch, 1, width) for dim 1"""
        return torch.sum(x, dim=self.dim, keepdim=True)


def get_inputs():
    return [torch.rand(BATCH, LENGTH, WIDTH)]


def get_init_inputs():
    return [DIM]
