"""expect: reject isolation. Row 4: synchronisation is made a no-op."""

import torch
from torch import nn

torch.cuda.synchronize = lambda *a: None


class ModelNew(nn.Module):
    def forward(self, x):
        return torch.relu(x)
