"""expect: reject values/given. The last term of the contraction is left out."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.linear = nn.Linear(features, hidden)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x):
        y = x[:, :-1] @ self.linear.weight[:, :-1].t() + self.linear.bias
        return torch.relu(self.norm(y))
