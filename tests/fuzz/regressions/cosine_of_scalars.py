# Scalars have no axis, and yet torch reduces one along their only one.

import torch
from torch import nn
from torch.nn import functional as F


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("b0", (torch.rand(()) + 0.5))

    def forward(self, x0):
        v8 = F.cosine_similarity(self.b0, self.b0, dim=-1)
        return v8


def get_inputs():
    return [
        torch.randn(()),
    ]
