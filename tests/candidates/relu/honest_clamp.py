"""expect: accept. The same function by clamping."""

from torch import nn


class ModelNew(nn.Module):
    def forward(self, x):
        return x.clamp(min=0)
