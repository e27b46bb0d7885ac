"""expect: reject batch. The number of rows, returned as an int, is that of the example."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x, settings, repeat):
        y = self.linear(x) * settings["scale"]
        for _ in range(repeat):
            y = torch.tanh(y) + settings["shift"]
        return {"y": y, "facts": {"rows": 7, "shift": settings["shift"], "none": None}}
