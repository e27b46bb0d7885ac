"""The chain of examples/pointwise_chain.py over 2^25 elements: the size for CPU benchmarks."""

import torch
from torch import nn


class Model(nn.Module):
    def forward(self, x):
        """x: any shape -> the same shape"""
        y = torch.tanh(x * 0.5 + 0.125)
        y = torch.sigmoid(torch.exp(y) - x)
        return torch.clamp(y * x, min=-0.25)


def get_inputs():
    return [torch.randn(4096, 8192)]


def get_init_inputs():
    return []
