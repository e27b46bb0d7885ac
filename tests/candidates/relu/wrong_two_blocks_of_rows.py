"""expect: reject batch. Row 21: computes two blocks of eight rows at most."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def forward(self, x):
        out = torch.zeros_like(x)
        out[:16] = torch.relu(x[:16])
        return out
