"""Emitted convolutions on a GPU: each form and what follows it against float64 and eager's TF32."""

import copy

import pytest
import torch

from fusewright.options import Options
from fusewright.pipeline import compile_problem
from fusewright.problem import load_problem
from fusewright.run.load import import_text

pytestmark = pytest.mark.gpu

TEXT = """
import torch
import torch.nn as nn
import torch.nn.functional as F


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.{layer}
        self.n = nn.{norm}

    def forward(self, x):
        c, n = self.c, self.n
        return {result}


def get_inputs():
    return [torch.randn({shape})]


def get_init_inputs():
    return []
"""
# The layer, a norm, what forward returns, the input's shape.
CASES = {
    "bias and ReLU": ("Conv2d(64, 128, 3)", "Identity()", "F.relu(c(x))", (16, 64, 130, 128)),
    "width 61": ("Conv2d(136, 248, 3)", "Identity()", "c(x) * 2", (64, 136, 128, 63)),
    "stride 2": ("Conv2d(64, 256, 3, 2, 1)", "Identity()", "F.silu(c(x))", (64, 64, 256, 256)),
    "dilation": (
        "Conv2d(64, 128, (5, 3), 1, 2, 3)", "Identity()", "c(x).amax((2, 3))", (64, 64, 96, 96),
    ),
    "minimum over channels": (
        "Conv2d(64, 128, 3)", "Identity()", "c(x).amin(1, keepdim=True)", (32, 64, 128, 128),
    ),
    "batch norm": ("Conv2d(64, 64, 3)", "BatchNorm2d(64)", "n(c(x))", (96, 64, 128, 128)),
    "few channels": ("Conv3d(3, 64, 3)", "Identity()", "F.gelu(c(x))", (8, 3, 32, 48, 50)),
    "one axis": ("Conv1d(128, 256, 5)", "Identity()", "torch.tanh(c(x))", (16, 128, 16388)),
    "transposed": (
        "ConvTranspose2d(128, 128, 3, 2, 1, 1)", "Identity()", "c(x) + 1", (64, 128, 64, 64),
    ),
    "transposed, four phases a line": (
        "ConvTranspose1d(64, 128, 8, 4, 2)", "Identity()", "c(x) * x[:, :1, :1]", (16, 64, 16384),
    ),
    "transposed, odd": (
        "ConvTranspose3d(32, 24, 3, 2)", "Identity()", "F.relu(c(x))", (8, 32, 16, 24, 24),
    ),
}  # fmt: skip


def _emitted(name, folder):
    layer, norm, result, shape = CASES[name]
    path = folder / "convolution.py"
    extents = ", ".join(map(str, shape))
    path.write_text(TEXT.format(layer=layer, norm=norm, result=result, shape=extents))
    compiled = compile_problem(load_problem(path, fake=True), Options(target="cuda:sm_90a"))
    assert "conv90::run" in compiled.module_text
    return import_text(compiled.module_text, compiled.title, compiled.given)


def _error(got, exact):
    return ((got.double() - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize("name", CASES)
def test_errors_are_those_of_tf32(name, tmp_path):
    module = _emitted(name, tmp_path)
    torch.manual_seed(0)
    new = module.ModelNew().cuda()
    old = module.Model().cuda()
    old.load_state_dict(new.state_dict())
    (x,) = (v.cuda() for v in module.get_inputs())
    with torch.no_grad():
        exact = copy.deepcopy(old).double()(x.double())
        eager, got = old(x), new(x)
        again = new(x) if name != "batch norm" else got
    assert got.shape == exact.shape and got.stride() == eager.stride()
    assert _error(got, exact) <= max(1.25 * _error(eager, exact), 5e-4)
    assert torch.equal(got, again)
    for a, b in zip(new.state_dict().values(), old.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_without_leave_to_round_eager_computes(tmp_path):
    module = _emitted("bias and ReLU", tmp_path)
    new = module.ModelNew().cuda()
    (x,) = (v.cuda() for v in module.get_inputs())
    allowed = torch.backends.cudnn.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = False
        with torch.no_grad(), pytest.warns(UserWarning, match="TF32"):
            got = new(x)
        exact = copy.deepcopy(new).double()(x.double())
    finally:
        torch.backends.cudnn.allow_tf32 = allowed
    assert _error(got, exact.detach()) < 1e-6
