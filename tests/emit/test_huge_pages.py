"""Fresh memory of megabytes is asked for in huge pages, and nothing else is."""

from pathlib import Path

import pytest
import torch

from emit.nests import CPU, buffer, kernel, lit, load, op, program, run_on_cpu, var
from fusewright.emit.segment import FRESH_BYTES
from fusewright.emit.unit import translation_unit
from fusewright.ir.kernel import Phase, Store, Tile
from module.problems import emitted


def doubled(count, role="output"):
    """y = 2 x over `count` floats; y with the given role."""
    n = var("n", count)
    store = Store("y", n * 1, op("mul", load("x", n), lit(2.0)))
    made = kernel("k", "elementwise", (n,), (Phase((), stores=(store,)),), Tile(1, 1, 1))
    return program([buffer("x", (count,)), buffer("y", (count,), role)], made)


def advice(p):
    text = translation_unit(p, CPU)
    return [line.strip() for line in text.splitlines() if line.strip().startswith("fw_huge_pages(")]


LARGE = FRESH_BYTES // 4


@pytest.mark.parametrize(
    ("count", "role", "expected"),
    [
        (LARGE, "output", [f"fw_huge_pages(y, {FRESH_BYTES});"]),
        (LARGE - 1, "output", []),
        (LARGE, "input", []),  # updated in place: mapped already
    ],
)
def test_what_is_asked_for(count, role, expected):
    assert advice(doubled(count, role)) == expected


def test_results_are_the_same(tmp_path):
    x = torch.rand(LARGE + 3)
    codes, (y,) = run_on_cpu(doubled(LARGE + 3), {"x": x}, tmp_path)
    assert codes == [0]
    assert torch.equal(y, x * 2)


LINEAR = """
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 1024)
    def forward(self, x): return torch.relu(self.linear(x))
def get_inputs(): return [torch.randn({rows}, 8)]
"""


@pytest.mark.parametrize(("rows", "large"), [(LARGE // 1024, True), (LARGE // 1024 - 1, False)])
def test_products_are_told_to_write_large_results_into_huge_pages(tmp_path, rows, large):
    new = emitted(tmp_path, LINEAR.format(rows=rows))
    text = Path(new.__file__).read_text()
    assert ("library.huge_pages(" in text) is large
    assert (", out=" in text) is large
    model, (x,) = new.ModelNew(), new.get_inputs()
    with torch.no_grad():
        torch.testing.assert_close(model(x), new.Model.forward(model, x))


def test_the_classical_binding_leaves_results_to_torch(tmp_path):
    new = emitted(tmp_path, LINEAR.format(rows=LARGE // 1024), binding="torch")
    text = Path(new.__file__).read_text()
    assert ", out=" not in text and "void huge_pages" not in text
