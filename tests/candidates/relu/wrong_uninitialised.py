"""expect: reject values/given.

Rows 5 and 23: no work is done; hopes for the memory of an old result.
"""

import torch
from torch import nn


class ModelNew(nn.Module):
    def forward(self, x):
        return torch.empty_like(x)
