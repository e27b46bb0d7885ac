"""expect: reject values. Softmax without its maximum taken out: overflows for large scores."""

import math

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        weights = torch.exp(scores.masked_fill(mask, float("-inf")))
        return (weights / weights.sum(-1, keepdim=True)) @ v
