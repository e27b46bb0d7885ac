"""Exclusive, shifted and padded scans as PyTorch spells them: one kernel, values as eager's."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusewright.capture import capture
from fusewright.context import Context
from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir.check import check_program
from fusewright.ir.dtypes import FLOAT32
from fusewright.problem import problem_from_module
from fusewright.rewrite import rewrite
from fusewright.rewrite.samples import graph_of
from fusewright.run.interpret_program import interpret_program
from fusewright.schedule import schedule
from fusewright.target.arch import arch


def zeros(x: Tensor, d: int) -> Tensor:
    return torch.zeros_like(x.select(d, 0).unsqueeze(d))


def but_last(x: Tensor, d: int) -> Tensor:
    return x.narrow(d, 0, x.size(d) - 1)


def but_first(x: Tensor, d: int) -> Tensor:
    return x.narrow(d, 1, x.size(d) - 1)


def padded(x: Tensor, d: int, low: int, high: int, value: float = 0.0) -> Tensor:
    return F.pad(x, (low, high) if d == 1 else (0, 0, low, high), value=value)


def weighted(x: Tensor, d: int) -> Tensor:
    part = but_last(x, d)
    return x * torch.cat((zeros(x, d), part.sigmoid().cumsum(d) / 3), d)


FORMS = {
    "cat of the scan of a part": lambda x, d: torch.cat((zeros(x, d), but_last(x, d).cumsum(d)), d),
    "cat of a part of the scan": lambda x, d: torch.cat((zeros(x, d), but_last(x.cumsum(d), d)), d),
    "scan of a cat": lambda x, d: torch.cat((zeros(x, d), but_last(x, d)), d).cumsum(d),
    "part of the scan of a cat": lambda x, d: but_last(torch.cat((zeros(x, d), x), d).cumsum(d), d),
    "pad of the scan of a part": lambda x, d: padded(but_last(x, d).cumsum(d), d, 1, 0),
    "part of a pad": lambda x, d: but_last(padded(x.cumsum(d), d, 1, 0), d),
    "scan of a pad": lambda x, d: padded(x, d, 1, -1).cumsum(d),
    "backwards": lambda x, d: padded(but_first(x, d).flip(d).cumsum(d).flip(d), d, 0, 1),
    "flipped": lambda x, d: padded(x.flip(d).cumsum(d), d, 1, -1).flip(d),
    "one more": lambda x, d: torch.cat((zeros(x, d), x.cumsum(d)), d),
    "padded on both sides": lambda x, d: padded(x.cumsum(d), d, 2, 1, 7.0),
    "behind other values": lambda x, d: torch.cat((x.narrow(d, 2, 1), but_last(x.cumsum(d), d)), d),
    "between other values": lambda x, d: torch.cat((zeros(x, d), x.cumsum(d), zeros(x, d) + 1), d),
    "before as many values": lambda x, d: torch.cat((x.cumsum(d), x), d),
    "with work on both sides": weighted,
    "products": lambda x, d: torch.cat((zeros(x, d) + 1, but_last(x.cumprod(d), d)), d),
    "both": lambda x, d: (x.cumsum(d), torch.cat((zeros(x, d), but_last(x.cumsum(d), d)), d)),
    "turned around": lambda x, d: padded(x, d, 1, -1).cumsum(d).flip(d),
    "a part": lambda x, d: but_last(x.cumsum(d), d) * 2,
}


class Call(nn.Module):
    def __init__(self, name: str, axis: int) -> None:
        super().__init__()
        self.name, self.axis = name, axis

    def forward(self, x: Tensor):
        return FORMS[self.name](x, self.axis)


@pytest.mark.parametrize("axis, dtype", [(0, torch.bfloat16), (1, torch.float32)])
@pytest.mark.parametrize("name", FORMS)
def test_one_kernel(name, axis, dtype):
    x, model, context = torch.rand(9, 12).to(dtype), Call(name, axis), Context()
    graph, _ = rewrite(capture(problem_from_module(model, [x]), context), context)
    expected = model(x)
    expected = (expected,) if isinstance(expected, Tensor) else expected
    tolerance = 1e-6 if dtype == torch.float32 else 3e-2
    for target in ("cpu", "cuda:sm_90a"):
        program = schedule(graph, context, arch(target))
        check_program(program)
        assert len(program.steps) == 1
        found = interpret_program(program, {graph.inputs[0].name: x}).outputs
        for e, f in zip(expected, found, strict=True):
            torch.testing.assert_close(f, e, rtol=tolerance, atol=tolerance)


def test_a_returned_part_is_a_view():
    s = g.scan("sum", g.input_("x", (9, 12), FLOAT32), 1)
    i, j = ix.axes((9, 11))
    graph = replace(graph_of(g.view(s, (9, 11), (i, j + 1))), output_strides=((12, 1),))
    graph, _ = rewrite(graph, Context())
    program = schedule(graph, Context(), arch("cpu"))
    (returned,) = program.returns
    assert len(program.steps) == 1 and (returned.strides, returned.offset) == ((12, 1), 1)
