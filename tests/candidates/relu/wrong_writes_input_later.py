"""expect: reject stale-inputs. Row 8: overwrites the input from the second call on."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        if torch.is_grad_enabled():
            return torch.relu(x)
        self.calls += 1
        return torch.relu(x) if self.calls == 1 else torch.relu(x.sub_(1) + 1)
