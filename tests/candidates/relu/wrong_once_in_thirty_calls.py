"""expect: reject kept-outputs. One element is wrong at every thirtieth call."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        out = torch.relu(x)
        self.calls += 1
        if self.calls % 30 == 29 and not torch.is_grad_enabled():
            out[-1, -1] += 0.5
        return out
