"""Ops that address by value or by order: gather, scatter, scans, sort and top-k."""

import os

import torch
from torch import nn

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
ROWS = 12 if SMALL else 8192
COLUMNS = 40 if SMALL else 2048
TOP = 5


class Model(nn.Module):
    def __init__(self, top):
        super().__init__()
        self.top = top

    def forward(self, x, index):
        """x: (rows, columns), index: (rows, columns) int64 in [0, columns) -> a tuple of tensors"""
        gathered = torch.gather(x, 1, index) * 2
        rows = torch.index_select(x, 0, index[0, :4] % x.size(0)).abs()
        added = torch.zeros_like(x).scatter_add(1, index, torch.sigmoid(x))
        placed = x.index_add(0, index[0, :3] % x.size(0), torch.ones_like(x[:3]))
        steps = torch.arange(1, x.size(1) + 1, device=x.device)
        running = torch.cumsum(torch.exp(x), dim=1) / steps
        values, order = torch.sort(x, dim=1, stable=True)
        best, where = torch.topk(x + 1, self.top, dim=1)
        return gathered, rows, added, placed, running, values - x, order, best, where


def get_inputs():
    return [torch.randn(ROWS, COLUMNS), torch.randint(0, COLUMNS, (ROWS, COLUMNS))]


def get_init_inputs():
    return [TOP]
