"""expect: accept. The convolution as a matrix product of patches."""

import torch
import torch.nn.functional as F
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, channels, filters):
        super().__init__()
        self.conv = nn.Conv2d(channels, filters, 3, padding=1)
        self.bn = nn.BatchNorm2d(filters)

    def forward(self, x):
        n, _, h, w = x.shape
        patches = F.unfold(x, 3, padding=1)
        kernel = self.conv.weight.flatten(1)
        y = (kernel @ patches).view(n, -1, h, w) + self.conv.bias.view(-1, 1, 1)
        return F.avg_pool2d(torch.relu(self.bn(y)), 2)
