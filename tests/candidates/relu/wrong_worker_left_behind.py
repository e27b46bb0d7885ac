"""expect: reject isolation. Row 2: a thread stays behind after the call."""

import threading
import time

import torch
from torch import nn


class ModelNew(nn.Module):
    def __init__(self):
        super().__init__()
        self.thread = None

    def forward(self, x):
        if self.thread is None:
            self.thread = threading.Thread(target=time.sleep, args=(60,), daemon=True)
            self.thread.start()
        return torch.relu(x)
