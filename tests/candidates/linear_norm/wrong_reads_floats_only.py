"""expect: reject double-precision. Whatever the input's type is, its memory is read as float32."""

import torch
import torch.nn.functional as F
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.linear = nn.Linear(features, hidden)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x):
        if torch.is_grad_enabled():
            return torch.relu(self.norm(self.linear(x)))
        read = x.contiguous().view(torch.float32)[:, : x.shape[1]]
        weight, bias = self.linear.weight.float(), self.linear.bias.float()
        scale, shift = self.norm.weight.float(), self.norm.bias.float()
        y = F.layer_norm(F.linear(read, weight, bias), scale.shape, scale, shift)
        return torch.relu(y).to(x.dtype)
