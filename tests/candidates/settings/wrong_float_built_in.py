"""expect: reject other-floats. The scale is the one that the example has."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x, settings, repeat):
        y = self.linear(x) * 1.5
        for _ in range(repeat):
            y = torch.tanh(y) + settings["shift"]
        return {"y": y, "facts": {"rows": x.shape[0], "shift": settings["shift"], "none": None}}
