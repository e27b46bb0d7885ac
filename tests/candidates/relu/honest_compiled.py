"""expect: accept. Compiled by the library, which wraps functions and starts threads."""

import torch
from torch import nn

compiled = torch.compile(lambda x: torch.clamp(x, min=0), dynamic=True)


class ModelNew(nn.Module):
    def forward(self, x):
        return compiled(x)
