"""expect: accept. With a backward of its own, which computes what is asked for only."""

import torch
from torch import nn


class Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scale, gate, y):
        ctx.save_for_backward(scale, gate, y)
        return scale * gate * y

    @staticmethod
    def backward(ctx, grad):
        scale, gate, y = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        return (
            (grad * gate * y).sum(0) if wanted[0] else None,
            grad * scale * y if wanted[1] else None,
            grad * scale * gate if wanted[2] else None,
        )


class ModelNew(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.left, self.right = nn.Linear(width, width), nn.Linear(width, width)
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x, y):
        gate = torch.sigmoid(self.left(x))
        return Gated.apply(self.scale, gate, y), torch.tanh(self.right(y)) + gate
