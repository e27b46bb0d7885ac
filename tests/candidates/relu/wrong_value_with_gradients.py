"""expect: reject grad-mode. Another value where gradients are wanted, and the right gradient."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def forward(self, x):
        out = torch.relu(x)
        return out + 1 if torch.is_grad_enabled() else out
