"""expect: accept. Sums of pairs of pairs."""

import torch
import torch.nn.functional as F
from torch import nn


def tree_sum(x):
    while x.shape[1] > 1:
        x = F.pad(x, (0, x.shape[1] % 2))
        x = x[:, ::2] + x[:, 1::2]
    return x[:, 0]


class ModelNew(nn.Module):
    def forward(self, x):
        top = x.amax(1, keepdim=True)
        top = torch.where(top.isfinite(), top, 0.0)
        total = tree_sum((x - top).exp())
        return total.log() + top[:, 0], tree_sum(x.square()) / x.shape[1]
