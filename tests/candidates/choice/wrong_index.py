"""expect: reject values/given. Row 35: off by one, within any relative tolerance of 1e-2."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def forward(self, x):
        values, indices = torch.max(x, dim=1)
        return values, (indices + 1).clamp(max=x.shape[1] - 1)
