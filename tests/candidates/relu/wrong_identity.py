"""expect: reject aliasing. Row 9: the input itself, right for every given input."""

from torch import nn


class ModelNew(nn.Module):
    def forward(self, x):
        return x
