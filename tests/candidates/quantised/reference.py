"""A product of int8 matrices in int32, scaled, rounded and saturated to int8 again."""

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, inner, columns):
        super().__init__()
        self.register_buffer("w", torch.randint(-127, 128, (inner, columns), dtype=torch.int8))
        self.register_buffer("scale", torch.rand(columns) * 0.01)

    def forward(self, x):
        sums = x.to(torch.int32) @ self.w.to(torch.int32)
        y = sums.float() * self.scale
        return y, y.round().clamp(-128, 127).to(torch.int8)


def get_inputs():
    return [torch.randint(-127, 128, (9, 24), dtype=torch.int8)]


def get_init_inputs():
    return [24, 16]
