"""expect: reject isolation. Row 18: lowers the precision of every other module in the process."""

import torch
from torch import nn

torch.set_float32_matmul_precision("medium")


class ModelNew(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.linear = nn.Linear(features, hidden)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x):
        return torch.relu(self.norm(self.linear(x)))
