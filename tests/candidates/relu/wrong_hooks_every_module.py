"""expect: reject isolation. Row 4: every other module of the process waits."""

import time

import torch
from torch import nn


def wait(module, inputs):
    if not isinstance(module, ModelNew):
        time.sleep(0.005)


nn.modules.module.register_module_forward_pre_hook(wait)


class ModelNew(nn.Module):
    def forward(self, x):
        return torch.relu(x)
