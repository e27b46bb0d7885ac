# A depthwise convolution of part of the batch lost the reduced axis of its single channel, which
# recognising it took for granted.

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.m2 = nn.Conv1d(17, 17, 3, padding=1, groups=17)
        self.register_buffer("b3", torch.zeros(9, 17, 9))

    def forward(self, x0):
        v4 = self.m2(x0)
        v6 = v4[::2]
        self.b3 += v6
        return x0


def get_inputs():
    return [
        torch.randn((17, 17, 9)),
    ]
