# The product of centred matrices, whose parts are large beside it: a matrix of correlations.

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()

    def forward(self, x0, x1):
        v0 = x0 - x0.mean(0)
        v1 = x1 - x1.mean(0)
        return v0.T @ v1 / 14


def get_inputs():
    return [torch.randn(14, 10) + 30, torch.randn(14, 10) - 30]
