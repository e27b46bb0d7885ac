"""Pointwise kernels of emitted C++ that read along another axis than they write."""

import pytest
import torch

from module.problems import emitted

BODY = """
class Model(nn.Module):
    def forward(self, x, y): return {result}
def get_inputs(): return [{x}, torch.randn(260, 133)]
"""
FLAT, SOLID = "torch.randn(133, 260)", "torch.randn(37, 40, 65)"


@pytest.mark.parametrize(
    ("result", "x"),
    [
        ("(y + x.t()).exp()", FLAT),
        ("x.permute(2, 0, 1).contiguous() + 1", SOLID),
        ("x.transpose(0, 2).bfloat16().contiguous()", SOLID),
        ("(y + x.t()).exp()", f"{FLAT}.long()"),
    ],
)
def test_tiles_of_any_size(tmp_path, result, x):
    new = emitted(tmp_path, BODY.format(result=result, x=x))
    assert ("_tile[32][32];" if "long" in x else "_tile[64][65];") in new.CPP_SOURCE
    torch.manual_seed(0)
    model, inputs = new.ModelNew(), new.get_inputs()
    with torch.no_grad():
        torch.testing.assert_close(model(*inputs), new.Model.forward(model, *inputs))
