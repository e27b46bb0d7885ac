"""expect: reject gradients. The backward reads the gradient's memory row by row."""

import torch
from torch import nn


class Relu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.relu(x)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad.as_strided(grad.shape, (grad.shape[1], 1)) * (x > 0)


class ModelNew(nn.Module):
    def forward(self, x):
        return Relu.apply(x)
