"""expect: reject other-ints. So many rounds as the example has."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x, settings, repeat):
        y = self.linear(x) * settings["scale"]
        y = torch.tanh(torch.tanh(y) + settings["shift"]) + settings["shift"]
        return {"y": y, "facts": {"rows": x.shape[0], "shift": settings["shift"], "none": None}}
