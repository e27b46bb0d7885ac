"""expect: reject values/given. The last column of the convolution sees no padding's neighbour."""

import torch
import torch.nn.functional as F
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, channels, filters):
        super().__init__()
        self.conv = nn.Conv2d(channels, filters, 3, padding=1)
        self.bn = nn.BatchNorm2d(filters)

    def forward(self, x):
        y = self.conv(x).clone()
        y[..., -1] = y[..., -2]
        return F.avg_pool2d(torch.relu(self.bn(y)), 2)
