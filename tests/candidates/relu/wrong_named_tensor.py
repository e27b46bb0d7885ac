"""expect: reject structure. Row 3: a class that only bears the name of a tensor."""

import torch
from torch import nn


class Tensor(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        plain = [a.as_subclass(torch.Tensor).relu() if isinstance(a, Tensor) else a for a in args]
        return func(*plain, **(kwargs or {}))


class ModelNew(nn.Module):
    def forward(self, x):
        return x.as_subclass(Tensor)
