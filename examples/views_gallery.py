"""Changes of layout and nothing else but sums: each is an index map, none needs a copy."""

import os

import torch
from torch import nn

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
BATCH = 2 if SMALL else 64
CHANNELS = 6 if SMALL else 96
SIDE = 12 if SMALL else 120


class Model(nn.Module):
    def forward(self, x):
        """x: (batch, channels, side, side) -> a tuple of tensors"""
        batch, channels, side, _ = x.shape
        shuffled = x.reshape(batch, 2, channels // 2, side, side).permute(0, 2, 1, 4, 3)
        shuffled = shuffled.reshape(batch, channels, side, side)
        mirrored = torch.flip(x, dims=(-1, -3)) + shuffled
        rolled = torch.cat([x[..., 3:], x[..., :3]], dim=-1) - torch.roll(x, (1, -2), (1, 2))
        windows = x.unfold(2, 4, 2).unfold(3, 3, 3)
        strided = x[:, ::2, 1::3, -4:] * x[:, 1::2, 2::3, :4]
        lower = torch.tril(mirrored, diagonal=1) + torch.triu(rolled, diagonal=-2)
        diagonal = torch.diagonal(lower, offset=1, dim1=-2, dim2=-1)
        first, rest = torch.split(x, [1, channels - 1], dim=1)
        stacked = torch.stack([first.expand_as(rest), rest, rest.transpose(2, 3)], dim=2)
        picked = x.select(1, 2).unsqueeze(-1).repeat(1, 1, 1, 2).movedim(-1, 1).narrow(2, 1, 5)
        return lower, windows.sum(dim=(-2, -1)), strided, diagonal, stacked, picked


def get_inputs():
    return [torch.randn(BATCH, CHANNELS, SIDE, SIDE)]


def get_init_inputs():
    return []
