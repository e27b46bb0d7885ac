"""Rewriting takes time in proportion to the program: capture is not counted, waiting is neither."""

import time
from functools import cache

import pytest
import torch
from torch import nn

from fusewright.capture import capture
from fusewright.context import Context
from fusewright.problem import problem_from_module
from fusewright.rewrite import rewrite

# Seconds of the processor: about five times what it takes on a laptop.
LIMIT = 5.0


class Deep(nn.Module):
    """Residual layers: linear, layer norm, gelu, a sum; some thirty nodes each."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64), nn.GELU()) for _ in range(layers)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return x


@cache
def seconds(layers: int) -> float:
    graph = capture(problem_from_module(Deep(layers), [torch.zeros(32, 64)]), Context())
    assert len(graph.nodes()) > 20 * layers
    start = time.process_time()
    rewrite(graph, Context())
    return time.process_time() - start


def test_300_operations() -> None:
    assert seconds(12) < LIMIT


@pytest.mark.slow
def test_100_layers() -> None:
    # Four times the layers: four times the work where it is linear, sixteen where it is quadratic.
    assert seconds(100) < 4 * LIMIT
    assert seconds(100) < 8 * seconds(25) + 1.0
