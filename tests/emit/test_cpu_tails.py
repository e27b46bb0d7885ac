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
    overlaps = f">= {columns // 16 * 16}", f", {columns} - 16)", f", {columns} - 32)"
    assert any(x in new.CPP_SOURCE for x in overlaps) or columns % 16 == 1
    torch.manual_seed(0)
    (x,) = new.get_inputs()
    for k, c in enumerate((0, columns // 2, columns - 1, columns - 2)):
        x[k, c] = (float("nan"), 50.0, float("inf"), -50.0)[k]  # the last row stays as it is
    model = new.ModelNew()
    with torch.no_grad():
        for got, want in zip(model(x), new.Model.forward(model, x.double()), strict=True):
            torch.testing.assert_close(got, want.to(got.dtype), equal_nan=True)


TURNED = """
class Model(nn.Module):
    def forward(self, x, scale, shift):
        y = x * scale + shift
        total = torch.logsumexp(x, -1) - shift[:, 0]
        return torch.log_softmax(y, -1) * scale, y.exp().prod(-1), total
def get_inputs():
    return [torch.randn({rows}, {columns}), torch.rand({columns}), torch.rand({rows}, 1)]
"""


@pytest.mark.parametrize(("rows", "columns"), [(70, 17), (64, 10), (33, 32), (1000, 31)])
def test_short_rows_are_turned_around(tmp_path, rows, columns):
    new = emitted(tmp_path, TURNED.format(rows=rows, columns=columns))
    assert "tile0[k * 32 + lane]" in new.CPP_SOURCE
    torch.manual_seed(0)
    x, scale, shift = new.get_inputs()
    x[0, 0], x[1, 1], x[rows - 1, columns - 1] = float("nan"), float("-inf"), 80.0
    model = new.ModelNew()
    with torch.no_grad():
        want = new.Model.forward(model, x.double(), scale.double(), shift.double())
        for a, b in zip(model(x, scale, shift), want, strict=True):
            torch.testing.assert_close(a, b.float(), equal_nan=True)


def test_a_class_of_a_short_row_is_computed_once_per_row(tmp_path):
    """The logarithm of a row, and of a pixel: not in the loop over the classes."""
    for shape, axis in (((64, 20), 1), ((2, 5, 64), 1)):
        body = f"""
class Model(nn.Module):
    def forward(self, x): return torch.log_softmax(x, {axis})
def get_inputs(): return [torch.randn{shape}]
"""
        new = emitted(tmp_path, body)
        assert new.CPP_SOURCE.count(" fw_log(") == 2  # its definition, and before the loop
        (x,) = new.get_inputs()
        torch.testing.assert_close(new.ModelNew()(x), torch.log_softmax(x, axis))


def test_columns_of_several_axes_are_all_stored(tmp_path):
    """Batch norm over few samples: its last phase stores along the pixels of every sample."""
    body = """
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(64)
    def forward(self, x): return self.norm(x).relu()
def get_inputs(): return [torch.randn(3, 64, 2, 2)]
"""
    new = emitted(tmp_path, body)
    (x,), model = new.get_inputs(), new.ModelNew()
    with torch.no_grad():
        torch.testing.assert_close(model(x), new.Model.forward(model, x))


@pytest.mark.parametrize("axis", [0, 1])
def test_a_running_fold_is_no_value_of_the_row(tmp_path, axis):
    body = f"""
class Model(nn.Module):
    def forward(self, x): return x.cumsum({axis}).exp() / 3, x.cumsum({axis}).log()
def get_inputs(): return [torch.rand(5, 6)]
"""
    new = emitted(tmp_path, body)
    (x,) = new.get_inputs()
    torch.testing.assert_close(new.ModelNew()(x), new.Model()(x))
