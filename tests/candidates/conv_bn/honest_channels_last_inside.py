"""expect: accept. Another memory format inside, the usual one outside."""

import torch
import torch.nn.functional as F
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, channels, filters):
        super().__init__()
        self.conv = nn.Conv2d(channels, filters, 3, padding=1)
        self.bn = nn.BatchNorm2d(filters)

    def forward(self, x):
        y = self.conv(x.contiguous(memory_format=torch.channels_last))
        return F.avg_pool2d(torch.relu(self.bn(y)), 2).contiguous()
