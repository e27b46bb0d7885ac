"""Hinge loss to one scalar."""

import os

import torch
from torch import nn

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
ROWS = 64 if SMALL else 8192


class Model(nn.Module):
    def forward(self, predictions, targets):
        """(rows, columns), (columns,) -> a scalar"""
        return torch.mean(torch.clamp(1 - predictions * targets, min=0))


def get_inputs():
    return [torch.rand(ROWS, 32768), torch.randint(0, 2, (32768,)).float() * 2 - 1]


def get_init_inputs():
    return []
