"""expect: accept. The mean in another order, so that the number differs by a rounding."""

from torch import nn


class ModelNew(nn.Module):
    def forward(self, x):
        return x.sum(1), x.t().square().double().mean().item(), int(x.gt(0).sum())
