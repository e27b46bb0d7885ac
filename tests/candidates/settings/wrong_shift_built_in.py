"""expect: reject values|gradients. A tensor of no dimensions is taken for a constant."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x, settings, repeat):
        y = self.linear(x) * settings["scale"]
        for _ in range(repeat):
            y = torch.tanh(y) + 0.25
        return {"y": y, "facts": {"rows": x.shape[0], "shift": settings["shift"], "none": None}}
