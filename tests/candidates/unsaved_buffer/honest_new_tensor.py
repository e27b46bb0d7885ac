"""expect: accept. The buffer is another tensor after each call; the table is made at once."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)
        self.register_buffer("last", torch.zeros(width), persistent=False)
        self.register_buffer("table", torch.arange(width) / 3, persistent=False)

    def forward(self, x):
        y = torch.addmm(self.linear.bias + self.last, x, self.linear.weight.t())
        self.last = 0.9 * self.last + 0.1 * y.detach().mean(0)
        return y * self.table
