"""expect: reject stale-inputs|values. Row 9: a copy of the input, right for every given input."""

from torch import nn


class ModelNew(nn.Module):
    def forward(self, x):
        return x.clone()
