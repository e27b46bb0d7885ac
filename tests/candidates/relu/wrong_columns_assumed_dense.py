"""expect: reject permuted. Takes dense memory for row-major memory."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def forward(self, x):
        dense = x.untyped_storage().nbytes() == x.nbytes
        if torch.is_grad_enabled() or x.ndim != 2 or not dense:
            return torch.relu(x)
        return torch.relu(x.as_strided(x.shape, (x.shape[1], 1)))
