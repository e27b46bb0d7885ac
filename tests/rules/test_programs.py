"""Whole programs, captured from torch: same values, and the least work that is known."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import pytest
import torch
from torch import nn

from fusewright.capture import capture
from fusewright.context import Context
from fusewright.ir.check_graph import check_graph
from fusewright.ir.graph import Graph
from fusewright.problem import problem_from_module
from fusewright.rewrite import rewrite
from fusewright.target.cost import graph_cost
from rules.audit import Program, association, identities, linear, mixed, norms, order, weights
from rules.support import assert_equal_values

FAMILIES = (linear, association, norms, order, identities, weights, mixed)
PROGRAMS = [p for family in FAMILIES for p in family.PROGRAMS]
# A program counts as reduced when it takes at most this many times its ideal work.
ENOUGH = 1.5


class Call(nn.Module):
    """A function of tensors as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


def captured(program: Program, shapes: Sequence[Sequence[int]], dtype: torch.dtype) -> Graph:
    inputs = [torch.zeros(s, dtype=dtype) for s in shapes]
    return capture(problem_from_module(Call(program.function), inputs), Context())


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.name)
def test_values(program: Program) -> None:
    graph = captured(program, program.small, torch.float64)
    after, _ = rewrite(graph, Context())
    check_graph(after)
    assert_equal_values(graph.roots, after.roots)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.name)
def test_work(program: Program) -> None:
    graph = captured(program, program.large, torch.float32)
    after, records = rewrite(graph, Context())
    work = graph_cost(after.roots).flops
    # An operation for each element of the result is part of every program.
    least = program.ideal(*program.large) + sum(prod(r.shape) for r in after.roots)
    assert work <= ENOUGH * least
    assert graph_cost(graph.roots).flops + sum(r.flops_delta for r in records) == work


def test_audit_is_large() -> None:
    assert len({p.name for p in PROGRAMS}) == len(PROGRAMS) >= 100
