"""expect: accept. Products and magnitudes from real and imaginary parts."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.filter = nn.Parameter(torch.randn(width, dtype=torch.complex64))

    def forward(self, x, z):
        a, b = torch.view_as_real(self.filter).unbind(-1)
        t = torch.fft.fft(x)
        spectrum = torch.complex(t.real * a - t.imag * b, t.real * b + t.imag * a)
        u, v = z.real * a + z.imag * b, z.imag * a - z.real * b
        return torch.fft.ifft(spectrum), torch.hypot(u, v)
