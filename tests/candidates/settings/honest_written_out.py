"""expect: accept. The same in other words."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x, settings, repeat):
        scale, shift = settings["scale"], settings["shift"]
        y = torch.addmm(scale * self.linear.bias, x, scale * self.linear.weight.t())
        for _ in range(repeat):
            y = y.tanh().add(shift)
        return {"y": y, "facts": {"rows": len(x), "shift": shift, "none": None}}
