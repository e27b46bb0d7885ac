# A mean that cancels, summed in two parts: right to rounding, and judged so only if the inputs
# are randomly rounded too (no fault of the compiler; kept for the tolerance).

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()

    def forward(self, x0, x100, x101):
        v0 = torch.dist(x0, x0)
        x0[..., 1:].sub_(v0)
        v100 = torch.stack([x101, x101, x101], 2)
        v102 = torch.sub(v100, x100, alpha=0.5)
        v104 = v102.mean()
        return v104


def get_inputs():
    return [
        (torch.randint(-8, 9, (34, 17)) / 4)[::2],
        (torch.rand((1, 34)) + 0.5)[..., 1:],
        torch.randn((1, 3, 1)),
    ]
