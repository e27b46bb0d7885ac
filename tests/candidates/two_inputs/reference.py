"""Two inputs, two outputs: gradients flow from both of them to both of those, to each weight."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.left, self.right = nn.Linear(width, width), nn.Linear(width, width)
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x, y):
        gate = torch.sigmoid(self.left(x))
        return self.scale * gate * y, torch.tanh(self.right(y)) + gate


def get_inputs():
    return [torch.randn(10, 24), torch.randn(10, 24)]


def get_init_inputs():
    return [24]
