"""expect: accept. Reductions in blocks, largest value first."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def forward(self, x):
        top = x.amax(1, keepdim=True)
        parts = [torch.exp(b - top).sum(1) for b in x.split(512, dim=1)]
        squares = sum(b.square().sum(1) for b in x.split(700, dim=1))
        return torch.log(sum(parts)) + top[:, 0], squares / x.shape[1]
