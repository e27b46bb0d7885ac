"""expect: accept. The same draws from the same seed, fused otherwise."""

import torch.nn.functional as F
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, features, hidden, p):
        super().__init__()
        self.linear = nn.Linear(features, hidden)
        self.p = p

    def forward(self, x):
        y = x @ self.linear.weight.t() + self.linear.bias
        return F.gelu(F.dropout(y, self.p, self.training))
