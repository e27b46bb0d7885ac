"""expect: reject isolation. Row 4: another body in a function that others copy with."""

import copy

import torch
from torch import nn


def keep(x, memo=None, _nil=()):
    return x


copy.deepcopy.__code__ = keep.__code__


class ModelNew(nn.Module):
    def forward(self, x):
        return torch.relu(x)
