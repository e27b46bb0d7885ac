"""expect: reject gradients. The filter's imaginary part gets none from the first output."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.filter = nn.Parameter(torch.randn(width, dtype=torch.complex64))

    def forward(self, x, z):
        half = torch.complex(self.filter.real, self.filter.imag.detach())
        spectrum = torch.fft.fft(x) * half
        return torch.fft.ifft(spectrum), (z * self.filter.conj()).abs()
