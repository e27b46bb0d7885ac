"""expect: reject other-thread. What it works in belongs to the thread that imported the file."""

import threading

import torch
from torch import nn

LOCAL = threading.local()
LOCAL.ready = True


class ModelNew(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.linear = nn.Linear(features, hidden)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x):
        y = torch.relu(self.norm(self.linear(x)))
        return y if hasattr(LOCAL, "ready") else torch.zeros_like(y)
