"""expect: accept. The index first, then the value at it."""

from torch import nn


class ModelNew(nn.Module):
    def forward(self, x):
        indices = x.argmax(dim=1)
        return x.gather(1, indices.unsqueeze(1)).squeeze(1), indices
