"""expect: reject padded-rows. Looks at the last stride only."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def forward(self, x):
        if torch.is_grad_enabled() or x.ndim != 2 or x.stride(-1) != 1:
            return torch.relu(x)
        return torch.relu(x.as_strided(x.shape, (x.shape[1], 1)))
