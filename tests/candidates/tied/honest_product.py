"""expect: accept. The tied weight read once and used twice."""

import torch
import torch.nn.functional as F
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, words, width):
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        w = self.embed.weight
        return torch.tanh(F.embedding(ids, w)) @ w.t()
