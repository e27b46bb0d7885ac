"""expect: accept. The running sum as a product with a triangle of ones."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width))

    def forward(self, x):
        y = torch.sigmoid(x * self.weight)
        return y @ torch.ones(y.shape[1], y.shape[1]).triu()
