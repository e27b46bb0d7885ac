"""expect: reject weights/set-before.

Row 21: computes with the weights of seed 42, not with its own.
"""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.linear = nn.Linear(features, hidden)
        self.norm = nn.LayerNorm(hidden)
        state = torch.get_rng_state()
        torch.manual_seed(42)
        self.baked = nn.Linear(features, hidden).weight.detach()
        torch.set_rng_state(state)

    def forward(self, x):
        return torch.relu(self.norm(x @ self.baked.t() + self.linear.bias))
