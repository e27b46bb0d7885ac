"""expect: reject kept-outputs. Each call writes into the same output tensor."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.linear = nn.Linear(features, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.out = None

    def forward(self, x):
        y = torch.relu(self.norm(self.linear(x)))
        if torch.is_grad_enabled() or torch.is_inference_mode_enabled():
            return y
        if self.out is None or self.out.shape != y.shape:
            self.out = torch.empty_like(y)
        return self.out.copy_(y)
