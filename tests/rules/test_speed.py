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


class Unrolled(nn.Module):
    """A recurrent cell called step by step: its gates are views of a part of one value each."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.cell, self.steps = nn.LSTMCell(8, 8), steps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = c = torch.zeros(len(x), 8)
        for t in range(self.steps):
            h, c = self.cell(x[:, t], (h, c))
        return h


@cache
def seconds(layers: int) -> float:
    return spent(Deep(layers), torch.zeros(32, 64), 20 * layers)


def spent(module: nn.Module, x: torch.Tensor, nodes: int) -> float:
    """The processor's seconds for the rewriting of a module of at least so many nodes."""
    graph = capture(problem_from_module(module, [x]), Context())
    assert len(graph.nodes()) > nodes
    start = time.process_time()
    rewrite(graph, Context())
    return time.process_time() - start


def test_300_operations() -> None:
    assert seconds(12) < LIMIT


def test_an_unrolled_cell() -> None:
    assert spent(Unrolled(48), torch.zeros(3, 48, 8), 48 * 12) < LIMIT


@pytest.mark.slow
def test_100_layers() -> None:
    # Four times the layers: four times the work where it is linear, sixteen where it is quadratic.
    assert seconds(100) < 4 * LIMIT
    assert seconds(100) < 8 * seconds(25) + 1.0
