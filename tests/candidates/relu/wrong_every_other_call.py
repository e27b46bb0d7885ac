"""expect: reject fresh-storage|stale-inputs|weights|repeat.

Row 7: every other call answers what the last one did.
"""

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self):
        super().__init__()
        self.count, self.last = 0, None

    def forward(self, x):
        self.count += 1
        if torch.is_grad_enabled() or self.count % 2:
            self.last = torch.relu(x)
        return self.last.clone()
