"""expect: reject structure. A class that only bears the name of a tuple."""

import torch
from torch import nn


class Lazy(tuple):
    """May compute when it is looked at."""


Lazy.__qualname__, Lazy.__module__ = "tuple", "builtins"


class ModelNew(nn.Module):
    def forward(self, x):
        return Lazy((torch.logsumexp(x, dim=1), x.square().mean(dim=1)))
