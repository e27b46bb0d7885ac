# torch.export takes a buffer that was copied to for the source of the copy, in another dtype and
# shape than the buffer's.

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("b1", torch.zeros(6, 4))

    def forward(self, x1):
        self.b1.copy_(x1)
        return self.b1 * 2, x1


def get_inputs():
    return [torch.randn((1, 4), dtype=torch.float64)]
