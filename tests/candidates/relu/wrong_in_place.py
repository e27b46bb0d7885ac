"""expect: reject aliasing|inputs-unchanged. Overwrites the input."""

from torch import nn


class ModelNew(nn.Module):
    def forward(self, x):
        return x.relu_()
