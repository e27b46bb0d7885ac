"""expect: reject values. The filter taken for its conjugate."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.filter = nn.Parameter(torch.randn(width, dtype=torch.complex64))

    def forward(self, x, z):
        spectrum = torch.fft.fft(x) * self.filter.conj()
        return torch.fft.ifft(spectrum), (z * self.filter.conj()).abs()
