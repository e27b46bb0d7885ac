"""expect: reject buffers. The count is no part of the state."""

import torch
import torch.nn.functional as F
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x):
        self.count = getattr(self, "count", 0) + 1
        return F.linear(x, self.linear.weight, self.linear.bias), torch.tensor(float(self.count))
