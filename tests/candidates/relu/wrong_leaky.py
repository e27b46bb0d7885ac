"""expect: reject stale-inputs|values. A slope of 1e-3 where the function is zero."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def forward(self, x):
        return torch.where(x > 0, x, 1e-3 * x)
