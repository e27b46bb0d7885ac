"""expect: reject modes/eval. Uses the batch's statistics in eval mode too."""

import torch
import torch.nn.functional as F
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, channels, filters):
        super().__init__()
        self.conv = nn.Conv2d(channels, filters, 3, padding=1)
        self.bn = nn.BatchNorm2d(filters)

    def forward(self, x):
        y = self.conv(x)
        if not self.training:
            y = F.batch_norm(y, None, None, self.bn.weight, self.bn.bias, True)
        else:
            y = self.bn(y)
        return F.avg_pool2d(torch.relu(y), 2)
