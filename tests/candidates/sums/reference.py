"""A long reduction to one number for each row, and softmax over the other axis."""

import torch
from torch import nn


class Model(nn.Module):
    def forward(self, x):
        return torch.logsumexp(x, dim=1), x.square().mean(dim=1)


def get_inputs():
    return [torch.randn(4, 3000)]
