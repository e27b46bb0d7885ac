"""expect: reject random-state. Reseeds Python's generator on every call."""

import random

import torch
from torch import nn


class ModelNew(nn.Module):
    def forward(self, x):
        random.seed(0)
        return torch.relu(x)
