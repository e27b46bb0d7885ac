"""expect: reject gradients. One parameter never learns."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.left, self.right = nn.Linear(width, width), nn.Linear(width, width)
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x, y):
        gate = torch.sigmoid(self.left(x))
        return self.scale.detach() * gate * y, torch.tanh(self.right(y)) + gate
