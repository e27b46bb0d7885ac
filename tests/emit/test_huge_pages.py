"""Fresh memory of megabytes is asked for in huge pages, and nothing else is."""

import pytest
import torch

from emit.nests import CPU, buffer, kernel, lit, load, op, program, run_on_cpu, var
from fusewright.emit.unit import FRESH_BYTES, translation_unit
from fusewright.ir.kernel import Phase, Store, Tile


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
