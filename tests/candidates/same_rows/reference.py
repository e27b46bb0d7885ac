"""All rows of the given input are equal, so one row repeated looks right."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width))

    def forward(self, x):
        return torch.sigmoid(x * self.weight).cumsum(dim=1)


def get_inputs():
    return [torch.linspace(-1, 1, 20).repeat(8, 1)]


def get_init_inputs():
    return [20]
