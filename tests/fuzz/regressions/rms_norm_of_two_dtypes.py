# A weight wider than the values: the result has the values' dtype in this torch, the wider one in
# others.

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("b0", (torch.rand((9, 4, 9, 9)) + 0.5).to(torch.float16))
        self.m2 = nn.RMSNorm(9)

    def forward(self, x0):
        v9 = self.m2(self.b0)
        return v9


def get_inputs():
    return [
        (torch.randint(-8, 9, (4, 9)) / 4).to(torch.float16),
    ]
