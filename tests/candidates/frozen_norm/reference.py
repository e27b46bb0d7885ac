"""A part that the constructor leaves in another mode; a buffer that settles to the last bit."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.norm = nn.BatchNorm1d(width).eval()
        self.register_buffer("length", torch.ones(width) / width**0.5)

    def forward(self, x):
        self.length.div_(self.length.norm())
        return self.norm(self.linear(x)) * self.length


def get_inputs():
    return [torch.randn(7, 5)]


def get_init_inputs():
    return [5]
