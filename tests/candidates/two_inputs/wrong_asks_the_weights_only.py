"""expect: reject gradients. Where the weights are frozen, no input gets a gradient."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.left, self.right = nn.Linear(width, width), nn.Linear(width, width)
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x, y):
        wanted = any(p.requires_grad for p in self.parameters())
        with torch.set_grad_enabled(wanted and torch.is_grad_enabled()):
            gate = torch.sigmoid(self.left(x))
            return self.scale * gate * y, torch.tanh(self.right(y)) + gate
