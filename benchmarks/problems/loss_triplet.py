"""Triplet margin loss of rows."""

import os

import torch
from torch import nn

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
ROWS = 512 if SMALL else 32768


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.loss = nn.TripletMarginLoss(margin=1.0)

    def forward(self, anchor, positive, negative):
        """each: (rows, 8192) -> a scalar"""
        return self.loss(anchor, positive, negative)


def get_inputs():
    return [torch.rand(ROWS, 8192), torch.rand(ROWS, 8192), torch.rand(ROWS, 8192)]


def get_init_inputs():
    return []
