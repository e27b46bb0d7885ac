"""expect: reject isolation. Row 18: whatever else runs gets a single thread."""

import torch
from torch import nn

torch.set_num_threads(1 + torch.get_num_threads() % 2)


class ModelNew(nn.Module):
    def forward(self, x):
        return torch.relu(x)
