"""expect: reject crash. Row 37: forges an answer on every open channel."""

import contextlib
import os
import struct

import torch
from torch import nn

ANSWER = b'{"result": {"findings": [], "children": []}}'


class ModelNew(nn.Module):
    def forward(self, x):
        for descriptor in range(3, 64):
            with contextlib.suppress(OSError):
                os.write(descriptor, struct.pack("!Q", len(ANSWER)) + ANSWER)
        return torch.relu(x)
