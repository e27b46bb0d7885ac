"""expect: reject isolation. Row 4: the library's own layer is made slow."""

import time

import torch
from torch import nn

swift = nn.ReLU.forward


def slow(self, x):
    time.sleep(0.01)
    return swift(self, x)


nn.ReLU.forward = slow


class ModelNew(nn.Module):
    def forward(self, x):
        return torch.relu(x)
