"""Empty and 0-dim tensors, float64, and inputs that are not contiguous."""

import os

import torch
from torch import nn

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
ROWS = 21 if SMALL else 4097
COLUMNS = 34 if SMALL else 2050


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, transposed, strided, expanded, empty, scalar):
        """transposed, strided, expanded: (rows, columns) of odd strides; empty: (0, columns);
        scalar: 0-dim float64 -> a list of tensors"""
        total = transposed * self.scale + strided * expanded + scalar
        joined = torch.cat([empty, total.double()], dim=0)
        return [
            total,
            joined.sum(dim=0),
            empty.sum(dim=0) + empty.prod(),
            (scalar * 2).exp(),
            total.mean() + scalar,
            empty * 3,
        ]


def get_inputs():
    return [
        torch.randn(COLUMNS, ROWS).t(),
        torch.randn(2 * ROWS, 3 * COLUMNS)[::2, 1::3],
        torch.randn(ROWS, 1).expand(ROWS, COLUMNS),
        torch.empty(0, COLUMNS, dtype=torch.float64),
        torch.rand((), dtype=torch.float64),
    ]


def get_init_inputs():
    return []
