"""expect: reject import. Defines Model but no ModelNew."""

from torch import nn


class Model(nn.Module):
    def forward(self, x):
        return x
