"""Indices of gathers in emitted C++: read and checked before the loop over what they lead to."""

import pytest
import torch

from module.problems import emitted

BODY = """
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(50, 24)
    def forward(self, x):
        return {result}
def get_inputs(): return [torch.randint(0, 50, (40, 7))]
"""


@pytest.mark.parametrize("result", ["self.table(x).mean(1)", "self.table(x).tanh() * 2"])
def test_an_index_is_read_once_per_row_of_the_table(tmp_path, result):
    new = emitted(tmp_path, BODY.format(result=result))
    lines = [line.strip() for line in new.CPP_SOURCE.splitlines()]
    (at,) = (k for k, line in enumerate(lines) if "= fw_checked(x[" in line)
    assert lines[at + 1].startswith("#pragma omp simd")
    model, (x,) = new.ModelNew(), new.get_inputs()
    with torch.no_grad():
        torch.testing.assert_close(model(x), new.Model.forward(model, x))
        x[39, 6] = 50
        with pytest.raises(IndexError):
            model(x)


def test_an_index_per_element_stays_in_the_loop(tmp_path):
    body = """
class Model(nn.Module):
    def forward(self, x, y): return torch.gather(y, 1, x).exp()
def get_inputs(): return [torch.randint(0, 30, (40, 24)), torch.randn(40, 30)]
"""
    new = emitted(tmp_path, body)
    assert "_at = " not in new.CPP_SOURCE
    x, y = new.get_inputs()
    torch.testing.assert_close(new.ModelNew()(x, y), y.gather(1, x).exp())


def test_positions_from_bools(tmp_path):
    body = """
class Model(nn.Module):
    def forward(self, x, y): return x[..., y.long() % 17], x[..., (x[0] > 0).long()]
def get_inputs(): return [torch.randn(6, 1, 17), torch.rand(6, 1, 17) > 0.5]
"""
    new = emitted(tmp_path, body)
    x, y = new.get_inputs()
    for found, expected in zip(new.ModelNew()(x, y), new.Model()(x, y), strict=True):
        torch.testing.assert_close(found, expected)
