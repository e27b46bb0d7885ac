"""Products by multiply-adds, emitted with what follows them, run on the CPU against eager."""

import pytest

from fusewright.ir.kernel import Kernel, Tile
from fusewright.schedule import contraction, fma_gate
from fusewright.schedule.gate import Size
from fusewright.target.arch import arch
from module.problems import compiled, write_problem
from simt.shim import compare, run_of

MODEL = """
class Model(nn.Module):
    def forward(self, {names}): return {result}
def get_inputs(): return [{inputs}]
"""
LINEAR = "F.gelu(F.linear(x, w, b))"
# What forward returns, and its inputs. Shapes beside, on and across the edges of tiles.
PRODUCTS = {
    "bias and GELU": (LINEAR, "torch.randn(70, 40), torch.randn(132, 40), torch.randn(132)"),
    "depth of 3": (LINEAR, "torch.randn(9, 3), torch.randn(68, 3), torch.randn(68)"),
    "odd, several chains": (LINEAR, "torch.randn(3, 523), torch.randn(7, 523), torch.randn(7)"),
    "stored and summed": (
        "(h := torch.tanh(x @ w), h.sum(1))", "torch.randn(66, 24), torch.randn(24, 80)",
    ),
    "column maximum": ("torch.sigmoid(x @ w).amax(0)", "torch.randn(70, 9), torch.randn(9, 65)"),
    "row logsumexp": ("torch.logsumexp(x @ w, 1)", "torch.randn(65, 12), torch.randn(12, 96)"),
    "transposed left": ("F.silu(x.t() @ w)", "torch.randn(20, 72), torch.randn(20, 64)"),
    "gaps": (
        "F.silu(x[:, ::3] @ w[::2, 1::2])", "torch.randn(10, 60), torch.randn(40, 33)",
    ),
    "batches, a residual": (
        "torch.bmm(x, w) * 0.5 + r",
        "torch.randn(3, 30, 20), torch.randn(3, 20, 34), torch.randn(3, 30, 34)",
    ),
    "shared right": ("F.relu(x @ w)", "torch.randn(3, 17, 20), torch.randn(20, 34)"),
}  # fmt: skip


@pytest.fixture
def always(monkeypatch):
    """The skeleton wins whatever the shape."""
    monkeypatch.setattr(contraction, "refusal", lambda *product: None)


def emitted(name, folder, target):
    result, inputs = PRODUCTS[name]
    names = "x, w, b" if "b)" in result else "x, w, r" if "+ r" in result else "x, w"
    text = MODEL.format(names=names, result=result, inputs=inputs)
    return compiled(write_problem(folder, text), target=target, precision="ieee")


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name, always, tmp_path):
    c = emitted(name, tmp_path, "cuda")
    (kernel,) = (s for s in c.program.steps if isinstance(s, Kernel))
    assert kernel.anchor == "contraction" and kernel.scheme == "fma"
    compare(run_of(c), (0,))


def test_the_large_tile(always, monkeypatch, tmp_path):
    large = Tile(threads=128, items=16, lanes=8)
    monkeypatch.setattr(fma_gate, "best_tile", lambda size, rates: (0.0, large))
    c = emitted("bias and GELU", tmp_path, "cuda:sm_80")
    (kernel,) = c.program.steps
    assert kernel.tile == large
    compare(run_of(c), (0,))


def test_large_results_get_the_large_tile():
    rates = arch("cuda:sm_90a").fma
    assert fma_gate.best_tile(Size(1, 4096, 4096, 256), rates)[1].items == 16
    assert fma_gate.best_tile(Size(1, 256, 256, 256), rates)[1].items == 8
