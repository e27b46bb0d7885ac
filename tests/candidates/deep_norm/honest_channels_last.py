"""expect: accept. Channels last: each sum of products and of statistics in another order."""

import torch
from torch import nn


class Layer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x):
        return torch.relu(self.norm(self.conv(x)))


class Model(nn.Module):
    def __init__(self, width, depth):
        super().__init__()
        self.layers = nn.Sequential(*(Layer(width) for _ in range(depth)))
        self.head = nn.Linear(width * 16, 8)

    def forward(self, x):
        return self.head(self.layers(x).flatten(1))


class ModelNew(Model):
    def forward(self, x):
        x = x.contiguous(memory_format=torch.channels_last)
        return self.head(self.layers(x).flatten(1))
