"""Cross entropy over 4096 classes."""

import os

import torch
from torch import nn
from torch.nn import functional as F

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
ROWS = 512 if SMALL else 65536


class Model(nn.Module):
    def forward(self, predictions, targets):
        """(rows, classes), (rows,) -> a scalar"""
        return F.cross_entropy(predictions, targets)


def get_inputs():
    return [torch.rand(ROWS, 4096), torch.randint(0, 4096, (ROWS,))]


def get_init_inputs():
    return []
