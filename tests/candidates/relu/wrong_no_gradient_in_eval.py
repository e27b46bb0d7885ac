"""expect: reject gradients. No gradient flows in eval mode."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def forward(self, x):
        return torch.relu(x) if self.training else torch.relu(x.detach())
