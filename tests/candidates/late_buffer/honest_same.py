"""expect: accept. It counts likewise, and returns the buffer itself."""

import torch.nn.functional as F
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x):
        if not hasattr(self, "calls"):
            self.register_buffer("calls", x.new_zeros(()))
        self.calls.add_(1.0)
        return F.linear(x, self.linear.weight, self.linear.bias), self.calls
