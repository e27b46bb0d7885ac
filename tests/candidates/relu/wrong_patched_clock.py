"""expect: reject isolation. Row 4: the clock that a benchmark reads is replaced."""

import time

import torch
from torch import nn

time.perf_counter = lambda: 0.0


class ModelNew(nn.Module):
    def forward(self, x):
        return torch.relu(x)
