"""expect: reject non-contiguous. Assumes contiguous input without a guard."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.linear = nn.Linear(features, hidden)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x):
        dense = x.as_strided(x.shape, (x.shape[1], 1)) if x.ndim == 2 else x
        return torch.relu(self.norm(self.linear(dense)))
