"""expect: reject values|precision. One of nine taps is rounded to bfloat16. Row 16."""

import torch
import torch.nn.functional as F
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x):
        if torch.is_grad_enabled():
            return self.conv(x)
        weight = self.conv.weight.clone()
        weight[:, :, 2, 2] = weight[:, :, 2, 2].bfloat16().float()
        return F.conv2d(x, weight, self.conv.bias, padding=1)
