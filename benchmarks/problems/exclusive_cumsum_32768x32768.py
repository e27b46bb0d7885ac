"""Running sums of what comes before each element, as one writes them: shifted by a zero."""

import torch
from torch import nn


class Model(nn.Module):
    def forward(self, x):
        """x: (rows, columns) -> the same shape"""
        before = torch.cumsum(x, dim=1)[:, :-1]
        return torch.cat((torch.zeros_like(x[:, :1]), before), dim=1)


def get_inputs():
    return [torch.rand(32768, 32768)]


def get_init_inputs():
    return []
