"""expect: reject stale-inputs. Row 6: caches by a cheap digest, the first element of the input."""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self):
        super().__init__()
        self.key = None

    def forward(self, x):
        if torch.is_grad_enabled() or not x.numel():
            return torch.relu(x)
        key = (x.shape, x.view(-1)[0].item()) if x.is_contiguous() else None
        if key is None or key != self.key:
            self.key, self.value = key, torch.relu(x)
        return self.value.clone()
