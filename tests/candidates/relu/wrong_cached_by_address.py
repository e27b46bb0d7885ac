"""expect: reject stale-inputs. Row 6: the answer of an earlier call with the same address."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self):
        super().__init__()
        self.cache = {}

    def forward(self, x):
        if torch.is_grad_enabled():
            return torch.relu(x)
        key = (x.data_ptr(), x.shape)
        if key not in self.cache:
            self.cache[key] = torch.relu(x)
        return self.cache[key].clone()
