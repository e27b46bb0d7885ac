"""Loops of emitted C++ that GCC must make vectors of: its report is read for every simd loop."""

import re
import shutil
import subprocess

import pytest
import torch

from fusewright.emit.support import CPU_FLAGS
from module.problems import emitted

MODEL = """
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.norm = nn.Embedding(9, 64), nn.LayerNorm(64)
    def forward(self, x, y): return {result}
def get_inputs(): return [{inputs}]
"""
ROWS = "torch.randn(50, 64), torch.randn(50, 64)"
MASK = "torch.randn(50, 64), torch.rand(50, 64) < 0.5"
HALF = "torch.randn(50, 64).bfloat16(), torch.randn(64).bfloat16()"


@pytest.mark.parametrize(
    ("result", "inputs"),
    [
        ("F.softmax(x.masked_fill(y, float('-inf')), 1)", MASK),
        ("(x * y).sum(1)", MASK),
        ("torch.where(y, x, 0.5 * x)", MASK),
        ("((x > 1) & (y < 0)).any(1)", ROWS),
        ("(x > 0) & ~y", MASK),
        ("F.gelu(x)", HALF),
        ("self.norm(self.table(x) + y)", "torch.randint(0, 9, (50,)), torch.randn(50, 64)"),
        ("x * torch.sigmoid(y)[:, None]", "torch.randn(50, 64), torch.randn(50)"),
        (
            "F.max_pool2d(F.batch_norm(x, None, None, y, y, True), 2)",
            "torch.randn(4, 3, 54, 54), torch.ones(3)",
        ),
        ("(x[:, :, 1:] - x[:, :, :-1]).abs().mean() + y", "torch.randn(30, 50, 70), torch.ones(1)"),
    ],
)
def test_loops_are_vectors(tmp_path, result, inputs):
    new = emitted(tmp_path, MODEL.format(result=result, inputs=inputs))
    torch.manual_seed(0)
    model, given = new.ModelNew(), new.get_inputs()
    with torch.no_grad():
        torch.testing.assert_close(model(*given), new.Model.forward(model, *given))
    assert not loops_without_vectors(new.CPP_SOURCE, tmp_path)


def loops_without_vectors(text, folder):
    """The simd loops of a C++ text that GCC leaves as they are."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++")
    source = folder / "kernels.cpp"
    source.write_text(text)
    flags = [f for f in CPU_FLAGS if f != "-march=native"]
    command = [compiler, *flags, "-mavx2", "-mfma", "-fopt-info-vec-optimized", "-c", str(source)]
    done = subprocess.run([*command, "-o", "/dev/null"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = {int(n) for n in re.findall(r"kernels\.cpp:(\d+):\d+: optimized: loop", done.stderr)}
    lines = text.splitlines()
    loops = [n for n, line in enumerate(lines, 1) if line.strip().startswith("#pragma omp simd")]
    # GCC names the directive, the loop or its first statement.
    return [lines[n] for n in loops if found.isdisjoint(range(n, n + 3))]
