# The C++ helper of a float32 power lacked the bit cast of double that it calls: 2 ** 3 was 1.

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()

    def forward(self, x1):
        v9 = 2.0 ** x1.clamp(-3, 3)
        return v9


def get_inputs():
    return [
        torch.randn((6, 8, 8, 6)),
    ]
