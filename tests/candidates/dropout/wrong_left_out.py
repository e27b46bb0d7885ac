"""expect: reject random-distribution. Row 32: no dropout at all."""

import torch.nn.functional as F
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, features, hidden, p):
        super().__init__()
        self.linear = nn.Linear(features, hidden)
        self.p = p

    def forward(self, x):
        return F.gelu(self.linear(x))
