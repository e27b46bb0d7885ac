"""expect: reject values/given. Row 20: an exception is caught and something else returned."""

import contextlib

from torch import nn


class ModelNew(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.linear = nn.Linear(features, hidden)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x):
        out = x.new_zeros(x.shape[0], self.linear.out_features)
        with contextlib.suppress(AttributeError):
            out = self.kernel(x)
        return out
