"""expect: reject values|precision|buffers. The sixth of ten layers in bfloat16. Row 16."""

import torch
import torch.nn.functional as F
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
        for layer in self.layers[:5]:
            x = layer(x)
        weight = self.layers[5].conv.weight
        x = F.conv2d(x.bfloat16(), weight.bfloat16(), padding=1).float()
        x = torch.relu(self.layers[5].norm(x))
        for layer in self.layers[6:]:
            x = layer(x)
        return self.head(x.flatten(1))
