"""expect: reject modes|weights.

Row 13: the affine parameters, 1 and 0 at the start, are ignored.
"""

import torch
import torch.nn.functional as F
from torch import nn


class ModelNew(nn.Module):
    def __init__(self, features, hidden):
        super().__init__()
        self.linear = nn.Linear(features, hidden)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x):
        return torch.relu(
            F.layer_norm(self.linear(x), (self.linear.out_features,), eps=self.norm.eps)
        )
