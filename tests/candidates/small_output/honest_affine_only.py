"""expect: accept.

By algebra: the mean of each channel of a normalised group, then the affine map.
"""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm = nn.GroupNorm(2, channels)

    def forward(self, x):
        n, c, size = x.shape
        groups = x.reshape(n, 2, -1)
        centre = groups.mean(-1, keepdim=True)
        scale = torch.rsqrt(groups.var(-1, correction=0, keepdim=True) + self.norm.eps)
        means = ((groups - centre).reshape(n, c, size).mean(-1).reshape(n, 2, -1) * scale).reshape(
            n, c
        )
        return (means * self.norm.weight + self.norm.bias).mean(-1)
