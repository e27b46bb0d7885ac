"""expect: reject values/given. A mean over every other element."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def forward(self, x):
        return torch.logsumexp(x, 1), x[:, ::2].square().mean(1)
