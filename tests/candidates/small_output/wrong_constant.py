"""expect: reject values/given|weights. Row 11: an output that does not depend on the input."""

from torch import nn


class ModelNew(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm = nn.GroupNorm(2, channels)

    def forward(self, x):
        return self.norm.bias.mean().expand(x.shape[0]).clone()
