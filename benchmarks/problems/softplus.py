"""Softplus of 2^29 elements."""

import os

import torch
from torch import nn
from torch.nn import functional as F

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
ROWS = 512 if SMALL else 16384


class Model(nn.Module):
    def forward(self, x):
        """x: any shape -> the same shape"""
        return F.softplus(x)


def get_inputs():
    return [torch.randn(ROWS, 32768)]


def get_init_inputs():
    return []
