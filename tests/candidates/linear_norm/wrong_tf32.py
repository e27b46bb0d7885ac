"""expect: reject precision. Row 17: operands rounded to TF32, as a tensor core does."""

import torch
from torch import nn


def tf32(tensor):
    bits = tensor.detach().contiguous().view(torch.int32)
    return ((bits + 0x1000) & ~0x1FFF).view(torch.float32)


class ModelNew(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.linear = nn.Linear(features, hidden)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x):
        y = tf32(x) @ tf32(self.linear.weight).t()
        return torch.relu(self.norm(y + self.linear.bias))
