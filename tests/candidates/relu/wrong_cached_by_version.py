"""expect: reject stale-inputs. Row 6: caches by object identity."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self):
        super().__init__()
        self.key = None

    def forward(self, x):
        if torch.is_grad_enabled():
            return torch.relu(x)
        if self.key != id(x):
            self.key, self.value = id(x), torch.relu(x)
        return self.value.clone()
