"""Scans as C++ and as CUDA (on the CPU, through fibers), against eager torch."""

import pytest
import torch

from emit.nests import check_together, run_on_cpu, run_on_simt, run_together
from emit.scans import ANCHORS, TILES, every_scan, running, softmax_then_scan


@pytest.mark.parametrize("anchor", ANCHORS)
def test_every_scan_on_cpu(anchor):
    cases = [c for size in ((5, 1), (4, 77), (70, 300)) for c in every_scan(anchor, *size)]
    check_together(cases, run_on_cpu, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("anchor", ANCHORS)
@pytest.mark.parametrize("number", range(5))
def test_every_scan_on_simt(anchor, number):
    tile = TILES[anchor][number]
    cases = [c for size in ((5, 40), (36, 77)) for c in every_scan(anchor, *size, tile)]
    check_together(cases, run_on_simt, rtol=3e-6, atol=3e-6)


@pytest.mark.parametrize("anchor", ANCHORS)
def test_scans_beside_folds(anchor):
    sizes = [(5, 40), (37, 77), (3, 260), (1, 2)]
    cases = [softmax_then_scan(anchor, torch.randn(s)) for s in sizes]
    check_together(cases, run_on_cpu, rtol=1e-5, atol=1e-5)
    cases = [softmax_then_scan(anchor, torch.randn(s), t) for s in sizes for t in TILES[anchor]]
    check_together(cases, run_on_simt, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("anchor", ANCHORS)
def test_long_scans_are_as_accurate_as_eager(anchor):
    x = torch.rand(2, 1 << 16)
    case = running(anchor, x, ("sum",))
    ((_, (y,)),) = run_together([case], run_on_cpu)
    exact = case.inputs["x"].double().cumsum(1 if anchor == "row_scan" else 0)
    assert (y - exact).norm() / exact.norm() < 1e-7
    tile = TILES[anchor][2]
    ((_, (y,)),) = run_together([running(anchor, x, ("sum",), tile=tile)], run_on_simt)
    assert (y - exact).norm() / exact.norm() < 2e-7
