"""Rows that are not whole vectors, in emitted C++: the last vector overlaps the one before it."""

import pytest
import torch

from module.problems import emitted

BODY = """
class Model(nn.Module):
    def forward(self, x):
        y = torch.log_softmax(x, -1)
        product, mean = (1 + x / 99).prod(-1), x.cos().mean(-1)
        return y, x.amax(-1), x.amin(-1), x.argmax(-1), (x + 2).sum(-1), product, mean
def get_inputs(): return [torch.randn({rows}, {columns})]
"""


@pytest.mark.parametrize("columns", [17, 20, 31, 33, 100, 257, 1001, 4095])
def test_every_column_counts_once(tmp_path, columns):
    new = emitted(tmp_path, BODY.format(rows=5, columns=columns))
    assert f">= {columns // 16 * 16}" in new.CPP_SOURCE or columns % 16 == 1
    torch.manual_seed(0)
    (x,) = new.get_inputs()
    for k, c in enumerate((0, columns // 2, columns - 1, columns - 2)):
        x[k, c] = (float("nan"), 50.0, float("inf"), -50.0)[k]  # the last row stays as it is
    model = new.ModelNew()
    with torch.no_grad():
        for got, want in zip(model(x), new.Model.forward(model, x.double()), strict=True):
            torch.testing.assert_close(got, want.to(got.dtype), equal_nan=True)
