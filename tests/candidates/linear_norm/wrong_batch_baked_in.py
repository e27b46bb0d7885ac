"""expect: reject batch. Row 21: only the first twelve rows are ever computed."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.linear = nn.Linear(features, hidden)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x):
        out = x.new_zeros(x.shape[0], self.linear.out_features)
        out[:12] = torch.relu(self.norm(self.linear(x[:12])))
        return out
