# A value kept on chip over one phase's columns was referred to in a phase over others.

import torch
from torch import nn
from torch.nn import functional as F


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.p2 = nn.Parameter(torch.randn(2, 1) * 0.5)

    def forward(self, x1):
        v0 = F.normalize(x1, dim=1)
        v1 = torch.matmul(x1, self.p2.mT) * 2
        return (
            v0,
            v1,
        )


def get_inputs():
    return [
        torch.randn((19, 17, 1))[1:-1],
    ]
