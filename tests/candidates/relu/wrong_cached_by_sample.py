"""expect: reject stale-inputs. Row 6: caches by a sample of the values and the last row."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self):
        super().__init__()
        self.key = None

    def forward(self, x):
        if torch.is_grad_enabled() or not x.numel():
            return torch.relu(x)
        key = (x.shape, tuple(x.reshape(-1)[::37].tolist()), x[-1].sum().item())
        if key != self.key:
            self.key, self.input, self.value = key, x, torch.relu(x)
        return self.value.clone()
