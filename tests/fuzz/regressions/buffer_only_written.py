# A buffer that is written but never read had no place in the program, and torch.export drops the
# conversion of a plain copy_ to the buffer's dtype and shape.

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("b1", torch.zeros(6, 4))

    def forward(self, x1):
        self.b1.copy_(x1)
        return x1


def get_inputs():
    return [
        torch.randn((1, 4)).to(torch.bfloat16).expand(6, 4),
    ]
