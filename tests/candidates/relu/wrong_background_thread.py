"""expect: reject late-work|values/given|isolation.

Row 2: a thread does the work after the call has returned.
"""

import threading
import time

import torch
from torch import nn


def later(x, out):
    time.sleep(0.01)
    with torch.no_grad():
        torch.clamp(x, min=0, out=out)


class ModelNew(nn.Module):
    def forward(self, x):
        out = torch.zeros_like(x)
        threading.Thread(target=later, args=(x, out)).start()
        return out
