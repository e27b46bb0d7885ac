"""State that forward changes in place: a step counter, a moving average, and the input itself."""

import os

import torch
from torch import nn

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
BATCH = 16 if SMALL else 16384
WIDTH = 96 if SMALL else 4096
DECAY = 0.9


class Model(nn.Module):
    def __init__(self, width, decay):
        super().__init__()
        self.decay = decay
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("average", torch.zeros(width))
        self.weight = nn.Parameter(torch.randn(width))

    def forward(self, x, history):
        """x, history: (batch, width); history is updated in place -> (batch, width)"""
        self.steps += 1
        mean = x.mean(dim=0)
        self.average.mul_(self.decay).add_(mean, alpha=1 - self.decay)
        correction = 1 - self.decay**self.steps
        y = x - self.average / correction
        y.mul_(self.weight).relu_()
        y[:, 0] = 1.0
        history.mul_(0.5).add_(y)
        return history * y


def get_inputs():
    return [torch.randn(BATCH, WIDTH), torch.zeros(BATCH, WIDTH)]


def get_init_inputs():
    return [WIDTH, DECAY]
