"""bfloat16, float16, float64, integers and booleans in one model, by torch's promotion rules."""

import os

import torch
from torch import nn

SMALL = os.environ.get("FUSEWRIGHT_EXAMPLE_SCALE") == "small"
ROWS = 33 if SMALL else 4096
COLUMNS = 65 if SMALL else 4096


class Model(nn.Module):
    def __init__(self, columns):
        super().__init__()
        self.gain = nn.Parameter(torch.randn(columns, dtype=torch.bfloat16))
        self.register_buffer("levels", torch.tensor([-3, 0, 2, 7], dtype=torch.int32))
        self.register_buffer("offset", torch.tensor(0.1, dtype=torch.float64))

    def forward(self, x, y, counts, keep):
        """x: bfloat16, y: float32, counts: int64, keep: bool, each (rows, columns) -> a dict"""
        scaled = x * self.gain
        mixed = scaled + y * self.offset
        chosen = torch.where(keep, mixed, counts)
        level = self.levels[counts % 4]
        hidden = chosen.masked_fill(~keep & (counts > 5), -1.5)
        return {
            "hidden": hidden,
            "half": (hidden.to(torch.float16) / 3).clamp(-4, 4),
            "shifted": (counts // 3 - level) ^ (counts << 1),
            "quotient": counts / 4 + keep,
            "best": hidden.argmax(dim=-1),
            "count": (hidden > y).sum(dim=0),
            "close": torch.all(hidden <= 100, dim=1) | keep.any(dim=1),
        }


def get_inputs():
    shape = (ROWS, COLUMNS)
    return [
        torch.randn(shape, dtype=torch.bfloat16),
        torch.randn(shape),
        torch.randint(-9, 10, shape),
        torch.rand(shape) < 0.6,
    ]


def get_init_inputs():
    return [COLUMNS]
