"""expect: reject gradients. A backward of its own, right for one output, guessed for another."""

import torch
from torch import nn


class Tanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.tanh(x)

    @staticmethod
    def backward(ctx, grad):
        return grad


class ModelNew(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.left, self.right = nn.Linear(width, width), nn.Linear(width, width)
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x, y):
        gate = torch.sigmoid(self.left(x))
        return self.scale * gate * y, Tanh.apply(self.right(y)) + gate
