"""expect: accept. More accurate than the reference: sums in float64."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def forward(self, x):
        wide = x.double()
        return torch.logsumexp(wide, 1).to(x.dtype), wide.square().mean(1).to(x.dtype)
