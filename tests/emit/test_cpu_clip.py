"""Padded windows in emitted C++: guards become the bounds of loops, and nothing else changes."""

import torch

from module.problems import emitted

BODY = """
import torch.nn.functional as F
class Model(nn.Module):
    def forward(self, x, y, z):
        return (
            F.max_pool1d(x, 8, 1, 4, 3), F.avg_pool1d(x, 5, 3, 2), F.max_pool2d(y, 3, 2, 1),
            F.avg_pool2d(y, (4, 3), (3, 2), (2, 1), count_include_pad=False),
            F.max_pool2d(y, 3, 2, 1, ceil_mode=True), F.max_pool3d(z, 3, 2, 1),
            F.avg_pool3d(z, (2, 5, 7), (1, 2, 3), (1, 2, 3)), F.pad(y, (3, 2)).amax(-2),
            F.pad(y, (3, 30, 1, 1), value=2.0).sum(-2), F.max_pool2d(y.bfloat16(), 5, 1, 2),
        )
def get_inputs():
    return [torch.randn(3, 4, 1300), torch.randn(2, 3, 21, 50), torch.randn(1, 2, 9, 19, 40)]
"""


def test_windows_that_reach_into_the_padding(tmp_path):
    new = emitted(tmp_path, BODY)
    assert "lane_first" in new.CPP_SOURCE and "lane_end" in new.CPP_SOURCE
    torch.manual_seed(0)
    model, inputs = new.ModelNew(), new.get_inputs()
    for x in inputs:
        x.view(-1)[::97] = float("nan")
        x.view(-1)[5::89] = -float("inf")
    with torch.no_grad():
        for got, want in zip(model(*inputs), new.Model.forward(model, *inputs), strict=True):
            torch.testing.assert_close(got, want, equal_nan=True)
