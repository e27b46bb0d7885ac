"""Plain numbers beside a tensor."""

import torch
from torch import nn


class Model(nn.Module):
    def forward(self, x):
        return x.sum(1), x.square().mean().item(), int((x > 0).sum())


def get_inputs():
    return [torch.randn(6, 20)]
