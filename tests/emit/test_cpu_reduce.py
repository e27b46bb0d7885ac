"""Row and column reductions as C++: compiled, run, and compared with eager torch."""

import pytest
import torch

from emit.kernels import ANCHORS, all_folds, bag, by_rows, folds, norm, softmax, special_values
from emit.nests import (
    F32,
    Case,
    buffer,
    check_together,
    kernel,
    load,
    op,
    program,
    ref,
    run_on_cpu,
    run_together,
    var,
)
from fusewright.emit.cpu import cpu_kernel
from fusewright.ir import dtypes as dt
from fusewright.ir.kernel import Fold, Phase, Store

# Sizes on both sides of the lane count, of a block, of the stack and of the flush limit.
SIZES = [(1, 1), (3, 7), (5, 32), (2, 33), (70, 64), (300, 70), (2, 20000), (129, 700)]


@pytest.mark.parametrize("anchor", ANCHORS)
def test_softmax(anchor):
    cases = [softmax(anchor, rows, cols) for rows, cols in SIZES]
    check_together(cases, run_on_cpu, rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize("anchor", ANCHORS)
def test_special_values_and_types_in_every_fold(anchor):
    whole_vectors = folds(anchor, special_values(40, 96), ("max", "min", "sum"))
    double = folds(anchor, special_values(40, 96).double(), ("max", "min"), dt.FLOAT64)
    check_together([*all_folds(anchor), whole_vectors, double], run_on_cpu)


@pytest.mark.parametrize("anchor", ANCHORS)
def test_rows_and_columns_of_several_axes(anchor):
    check_together([norm(anchor), bag(anchor)], run_on_cpu, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("anchor", ANCHORS)
def test_long_sums_are_as_accurate_as_eager(anchor):
    cases = [folds(anchor, torch.rand((1 << 21) >> n, 1 << n), ("sum",)) for n in (15, 20)]
    for case, (y,) in run_together(cases, run_on_cpu):
        x = by_rows(anchor, case.inputs["x"])
        exact = x.double().sum(1)

        def error(value, exact=exact):
            return ((value.double() - exact).norm() / exact.norm()).item()

        assert error(y) <= max(error(case.expected[0]), 1e-7)


def test_what_the_columns_share_is_computed_before_their_loop():
    i, j = var("i", 9), var("j", 40)
    x = load("x", i * 40 + j)
    shifted = op("sub", x, op("log", ref("total")))
    phases = (
        Phase((j,), folds=(Fold("total", "sum", F32, op("exp", x)),)),
        Phase((j,), stores=(Store("y", i * 40 + j, shifted),)),
    )
    k = kernel("shifted", "row_reduce", (i,), phases)
    p = program([buffer("x", (9, 40)), buffer("y", (9, 40), "output")], k)
    text = cpu_kernel(k, {b.name: b for b in p.buffers})
    assert text.index("fw_log") < text.rindex("for (")
    data = torch.randn(9, 40)
    expected = data - data.double().exp().sum(1, keepdim=True).log().float()
    check_together([Case(p, {"x": data}, (expected,))], run_on_cpu, rtol=2e-6, atol=2e-6)
