"""expect: reject gradients. In training, where no input requires a gradient, no weight gets one."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.left, self.right = nn.Linear(width, width), nn.Linear(width, width)
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x, y):
        wanted = x.requires_grad or y.requires_grad
        with torch.set_grad_enabled(wanted and torch.is_grad_enabled()):
            gate = torch.sigmoid(self.left(x))
            return self.scale * gate * y, torch.tanh(self.right(y)) + gate
