"""A running value in a buffer that the state_dict leaves out, and a table that is filled once."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.register_buffer("last", torch.zeros(width), persistent=False)
        self.register_buffer("table", None, persistent=False)

    def forward(self, x):
        if self.table is None:
            self.table = torch.arange(x.shape[1], dtype=torch.float32) / 3
        y = self.linear(x) + self.last
        self.last.mul_(0.9).add_(0.1 * y.detach().mean(0))
        return y * self.table


def get_inputs():
    return [torch.randn(4, 16)]


def get_init_inputs():
    return [16]
