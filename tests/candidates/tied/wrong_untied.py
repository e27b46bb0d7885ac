"""expect: reject state-dict. Two weights where the reference has one."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, words, width):
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = nn.Parameter(self.embed.weight.detach().clone())

    def forward(self, ids):
        return self.head(torch.tanh(self.embed(ids)))
