"""expect: accept. The same function by selection; NaN becomes 0, which is a warning."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def forward(self, x):
        return torch.where(x > 0, x, 0.0)
