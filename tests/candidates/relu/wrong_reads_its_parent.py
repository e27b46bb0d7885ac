"""expect: reject isolation. Row 37: looks into the process that started it."""

import contextlib
import os
from pathlib import Path

import torch
from torch import nn

for name in ("maps", "environ"):
    with contextlib.suppress(OSError):
        Path(f"/proc/{os.getppid()}/{name}").read_bytes()


class ModelNew(nn.Module):
    def forward(self, x):
        return torch.relu(x)
