"""expect: accept. Softmax in one pass over blocks of keys."""

import math

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q = q / math.sqrt(q.shape[-1])
        length = x.shape[1]
        peak = q.new_full((x.shape[0], length, 1), float("-inf"))
        total, out = torch.zeros_like(peak), torch.zeros_like(v)
        mask = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        for start in range(0, length, 8):
            block = slice(start, start + 8)
            scores = (q @ k[:, block].transpose(-2, -1)).masked_fill(mask[:, block], float("-inf"))
            higher = torch.maximum(peak, scores.amax(-1, keepdim=True))
            shrink, weights = torch.exp(peak - higher), torch.exp(scores - higher)
            total = total * shrink + weights.sum(-1, keepdim=True)
            out = out * shrink + weights @ v[:, block]
            peak = higher
        return out / total
