"""expect: reject stale-inputs|values. Right only where the verifier is loaded."""

import sys

import torch
from torch import nn

WATCHED = any(name.startswith("fusewright.") for name in sys.modules)


class ModelNew(nn.Module):
    def forward(self, x):
        return torch.relu(x) if WATCHED else x.clone()
