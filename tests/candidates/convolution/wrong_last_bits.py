"""expect: reject values. The weights lose the last six of their 24 bits."""

import torch
import torch.nn.functional as F
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        weight = (self.conv.weight.detach().view(torch.int32) & ~63).view(torch.float32)
        if torch.is_grad_enabled():
            return self.conv(x)
        return F.conv2d(x, weight, self.conv.bias, padding=1)
