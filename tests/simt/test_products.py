"""Products by multiply-adds and by mma.sync, emitted with what follows them, run on the CPU against
eager. The tensor core's instruction cuts off as the hardware does (cuda_on_cpu.hpp)."""

from dataclasses import replace

import pytest

from fusewright.ir import mma
from fusewright.ir.kernel import Kernel, Tile
from fusewright.schedule import contraction, gate
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
    "odd, several chains": (LINEAR, "torch.randn(65, 523), torch.randn(67, 523), torch.randn(67)"),
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


def emitted(name, folder, target, precision="ieee"):
    result, inputs = PRODUCTS[name]
    names = "x, w, b" if "b)" in result else "x, w, r" if "+ r" in result else "x, w"
    text = MODEL.format(names=names, result=result, inputs=inputs)
    return compiled(write_problem(folder, text), target=target, precision=precision)


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name, always, tmp_path):
    c = emitted(name, tmp_path, "cuda")
    (kernel,) = (s for s in c.program.steps if isinstance(s, Kernel))
    assert kernel.anchor == "contraction" and kernel.scheme == "fma"
    compare(run_of(c), (0,))


def test_the_large_tile(always, monkeypatch, tmp_path):
    large = Tile(threads=128, items=16, lanes=8)
    monkeypatch.setattr(gate, "best_tile", lambda *product: (0.0, large))
    c = emitted("bias and GELU", tmp_path, "cuda:sm_80")
    (kernel,) = c.program.steps
    assert kernel.tile == large
    compare(run_of(c), (0,))


def test_large_results_get_the_large_tile():
    rates = arch("cuda:sm_90a").tiles
    assert gate.best_tile(Size(1, 4096, 4096, 256), "fma", 0, rates)[1].items == 16
    assert gate.best_tile(Size(1, 256, 256, 256), "fma", 0, rates)[1].items == 8


WHOLE = "torch.randint(-3, 4, ({})).float()"  # exact in every type
ON_TENSOR_CORES = {
    "six": (LINEAR, "torch.randn(70, 40), torch.randn(136, 40), torch.randn(136)", "match"),
    "six, transposed": ("(x.t() @ w).amax(0)", "torch.randn(33, 9), torch.randn(33, 5)", "match"),
    "six, batches": (
        "torch.bmm(x, w).amax(2)", "torch.randn(2, 9, 70), torch.randn(2, 70, 12)", "match",
    ),
    "six, denormals": (
        "(x @ w.t()) * 1e3", "torch.randn(9, 40) * 1e-39, torch.randn(8, 40) * 1e3", "match",
    ),
    "six, ranges": (
        "(x @ w.t()) * 2.0",
        "torch.randn(9, 40) * 2.0 ** (torch.arange(9)[:, None] * 25 - 100), torch.randn(8, 40)",
        "match",
    ),
    "six, special values": (
        "(x @ w.t()) * 2.0",
        "torch.randn(9, 40).index_put(tuple(torch.tensor([[3, 5], [7, 33]])), torch.tensor("
        "[torch.inf, torch.nan])), torch.randn(8, 40).index_fill(1, torch.tensor(7), -3e38)",
        "match",
    ),
    "tf32": (
        "F.relu(x @ w.t())", f"{WHOLE.format('20, 36')}, {WHOLE.format('24, 36')}", "tf32",
    ),
    "bf16": (
        "F.relu(x @ w.t()).sum(1)", f"{WHOLE.format('20, 36')}, {WHOLE.format('9, 36')}", "bf16",
    ),
    "native": (
        "F.relu(x @ w.t())", "torch.randn(9, 80).half(), torch.randn(24, 80).half()", "match",
    ),
    "native, packed": (
        "F.relu(x @ w)",
        "torch.randn(140, 7).bfloat16(), torch.randn(7, 6).bfloat16()",
        "match",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ON_TENSOR_CORES)
def test_on_tensor_cores(name, always, monkeypatch, tmp_path):
    result, inputs, precision = ON_TENSOR_CORES[name]
    monkeypatch.setitem(PRODUCTS, name, (result, inputs))
    c = emitted(name, tmp_path, "cuda:sm_80", precision)
    (kernel,) = (s for s in c.program.steps if isinstance(s, Kernel))
    assert kernel.anchor == "contraction" and kernel.scheme == name.split(",")[0]
    compare(run_of(c), (0,))


def test_long_chains_of_six_products(always, monkeypatch, tmp_path):
    """Sums beyond a chain go through memory; here a chain is short."""
    monkeypatch.setattr(mma, "CHAIN", 32)
    inputs = "torch.randn(130, 72), torch.randn(9, 72), torch.randn(9)"
    monkeypatch.setitem(PRODUCTS, "deep", (LINEAR, inputs))
    c = emitted("deep", tmp_path, "cuda:sm_80", "match")
    text = c.module_text.replace("kChain = 4096", "kChain = 32")
    assert text != c.module_text
    compare(run_of(replace(c, module_text=text)), (0,))
