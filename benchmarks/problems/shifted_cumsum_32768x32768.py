"""An exclusive sum of all but the last row that also has the total: rows of an odd length."""

import torch
from torch import nn


class Model(nn.Module):
    def forward(self, x):
        """x: (rows, columns) -> (rows - 1, columns + 1)"""
        zero = torch.zeros_like(x.select(1, 0).unsqueeze(1))
        return torch.cumsum(torch.cat((zero, x), dim=1)[:-1], dim=1)


def get_inputs():
    return [torch.rand(32768, 32768)]


def get_init_inputs():
    return []
