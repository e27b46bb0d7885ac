"""Reductions of every kind, over one axis, several, all, and by negative numbers."""

import os

import torch
from torch import nn

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
BATCH = 3 if SMALL else 64
ROWS = 20 if SMALL else 512
COLUMNS = 31 if SMALL else 1023


class Model(nn.Module):
    def forward(self, x):
        """x: (batch, rows, columns) -> tensors by name"""
        return {
            "sum": x.sum(dim=(0, -1)),
            "mean": x.mean(dim=-2, keepdim=True),
            "product": (1 + 0.01 * x).prod(dim=1),
            "variance": x.var(dim=(0, 1)),
            "deviation": x.std(dim=-1, correction=0),
            "norm": torch.linalg.vector_norm(x, dim=(1, 2)),
            "norm_1": x.norm(p=1, dim=0),
            "norm_inf": torch.linalg.vector_norm(x, ord=float("inf"), dim=-1),
            "logsumexp": torch.logsumexp(x, dim=(-1, -2)),
            "maximum": x.amax(dim=(0, 2)),
            "minimum": x.min(),
            "largest": x.max(dim=1),
            "argmin": x.argmin(dim=0),
            "argmax": x.argmax(),
            "any": (x > 3).any(dim=1),
            "all": (x < 3).all(),
            "nonzero": torch.count_nonzero(torch.relu(x), dim=1),
            "centred": (x - x.mean(dim=-1, keepdim=True)).square().sum(dim=-1).sqrt(),
        }


def get_inputs():
    return [torch.randn(BATCH, ROWS, COLUMNS)]


def get_init_inputs():
    return []
