"""expect: reject kept-outputs. An output is overwritten eight calls later."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self):
        super().__init__()
        self.ring, self.turn = [torch.empty(8, 50) for _ in range(8)], 0

    def forward(self, x):
        if torch.is_grad_enabled() or x.shape != (8, 50):
            return torch.relu(x)
        self.turn = (self.turn + 1) % 8
        return torch.clamp(x, min=0, out=self.ring[self.turn])
