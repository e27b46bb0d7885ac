"""Complex inputs, outputs and weights: a filter in the frequency domain."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.filter = nn.Parameter(torch.randn(width, dtype=torch.complex64))

    def forward(self, x, z):
        spectrum = torch.fft.fft(x) * self.filter
        return torch.fft.ifft(spectrum), (z * self.filter.conj()).abs()


def get_inputs():
    return [torch.randn(6, 16), torch.randn(6, 16, dtype=torch.complex64)]


def get_init_inputs():
    return [16]
