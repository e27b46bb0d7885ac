"""expect: accept. Batch normalisation written out, running statistics included."""

import torch
import torch.nn.functional as F
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, channels, filters):
        super().__init__()
        self.conv = nn.Conv2d(channels, filters, 3, padding=1)
        self.bn = nn.BatchNorm2d(filters)

    @torch.no_grad()
    def update(self, mean, spread, count):
        self.bn.num_batches_tracked += 1
        self.bn.running_mean.lerp_(mean, self.bn.momentum)
        self.bn.running_var.lerp_(spread * (count / (count - 1)), self.bn.momentum)

    def forward(self, x):
        y = self.conv(x)
        if self.training:
            mean, spread = y.mean((0, 2, 3)), y.var((0, 2, 3), correction=0)
            self.update(mean, spread, y.numel() // y.shape[1])
        else:
            mean, spread = self.bn.running_mean, self.bn.running_var
        scale = self.bn.weight * torch.rsqrt(spread + self.bn.eps)
        y = (y - mean.view(-1, 1, 1)) * scale.view(-1, 1, 1) + self.bn.bias.view(-1, 1, 1)
        return F.avg_pool2d(torch.relu(y), 2)
