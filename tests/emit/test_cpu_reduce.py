"""Row and column reductions as C++: compiled, run, and compared with eager torch in float64."""

import pytest
import torch

from emit.nests import (
    F32,
    buffer,
    check_on_cpu,
    kernel,
    lit,
    load,
    op,
    program,
    ref,
    run_on_cpu,
    var,
)
from fusewright.ir import dtypes as dt
from fusewright.ir.kernel import Fold, Keep, Phase, Store


def layout(anchor, rows, cols):
    """Row and column variables, the shape and the offset of an array that the anchor suits."""
    i, j = var("i", rows), var("j", cols)
    if anchor == "row_reduce":
        return i, j, (rows, cols), i * cols + j
    return i, j, (cols, rows), j * rows + i


def softmax(anchor, rows, cols):
    i, j, shape, offset = layout(anchor, rows, cols)
    x = load("x", offset)
    power = op("exp", op("sub", x, ref("top")))
    phases = (
        Phase((j,), folds=(Fold("top", "max", F32, x),)),
        Phase((j,), (Fold("total", "sum", F32, ref("power")),), keeps=(Keep("power", power),)),
        Phase((j,), stores=(Store("y", offset, op("div", ref("power"), ref("total"))),)),
    )
    k = kernel(f"softmax_{rows}_{cols}", anchor, (i,), phases)
    return program([buffer("x", shape), buffer("y", shape, "output")], k)


# Sizes on both sides of the lane count, of a block, of the stack and of the flush limit.
SIZES = [(1, 1), (3, 7), (5, 32), (2, 33), (70, 64), (300, 70), (2, 20000), (129, 700)]


@pytest.mark.parametrize("anchor", ["row_reduce", "column_reduce"])
@pytest.mark.parametrize("rows, cols", SIZES)
def test_softmax(anchor, rows, cols):
    p = softmax(anchor, rows, cols)
    x = torch.randn(p.buffers[0].shape) * 4
    codes, (y,) = run_on_cpu(p, {"x": x})
    dim = 1 if anchor == "row_reduce" else 0
    assert codes == [0]
    torch.testing.assert_close(y.double(), x.double().softmax(dim), rtol=2e-6, atol=1e-9)


def sums(anchor, rows, cols, kinds=("sum",), dtype=F32):
    """One kernel with several folds of one array, each stored to its own output."""
    i, j, shape, offset = layout(anchor, rows, cols)
    x = load("x", offset, dtype)
    arg = {"argmax", "argmin"}
    folds = [Fold(f"f_{k}", k, dtype, x, j if k in arg else None) for k in kinds]
    types = [dt.INT64 if k in arg else dtype for k in kinds]
    stores = [
        Store(f"y_{k}", i * 1, ref(f"f_{k}", t)) for k, t in zip(kinds, types, strict=True)
    ]
    phases = (Phase((j,), folds=tuple(folds)), Phase((), stores=tuple(stores)))
    k = kernel("sums", anchor, (i,), phases)
    outputs = [
        buffer(f"y_{k}", (rows,), "output", t) for k, t in zip(kinds, types, strict=True)
    ]
    return program([buffer("x", shape, dtype=dtype), *outputs], k)


@pytest.mark.parametrize("anchor", ["row_reduce", "column_reduce"])
def test_special_values_reach_every_fold(anchor):
    p = sums(anchor, 40, 77, ("max", "min", "sum", "argmax", "argmin"))
    x = torch.randint(-3, 4, (40, 77)).float()  # many ties
    x[3, 50] = x[3, 60] = float("nan")
    x[4] = float("-inf")
    x[5] = float("inf")
    x[6, 10] = float("inf")
    dim, given = (1, x) if anchor == "row_reduce" else (0, x.t().contiguous())
    codes, outputs = run_on_cpu(p, {"x": given})
    names = ("amax", "amin", "sum", "argmax", "argmin")
    assert codes == [0]
    for name, y in zip(names, outputs, strict=True):
        expected = getattr(given, name)(dim)
        torch.testing.assert_close(y, expected, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("anchor", ["row_reduce", "column_reduce"])
@pytest.mark.parametrize("log2", [15, 20])
def test_long_sums_are_as_accurate_as_eager(anchor, log2):
    rows, cols = (1 << 21) >> log2, 1 << log2
    p = sums(anchor, rows, cols)
    x = torch.rand(p.buffers[0].shape)
    _, (y,) = run_on_cpu(p, {"x": x})
    dim = 1 if anchor == "row_reduce" else 0
    exact = x.double().sum(dim)

    def error(value):
        return ((value.double() - exact).norm() / exact.norm()).item()

    assert error(y) <= max(error(x.sum(dim)), 1e-7)


@pytest.mark.parametrize("anchor", ["row_reduce", "column_reduce"])
def test_integer_and_bool_folds(anchor):
    for dtype, kinds in ((dt.INT64, ("sum", "max", "min", "prod")), (dt.BOOL, ("any", "all"))):
        p = sums(anchor, 9, 50, kinds, dtype)
        x = torch.randint(0, 2 if dtype == dt.BOOL else 3, p.buffers[0].shape)
        x = x.bool() if dtype == dt.BOOL else x - 1
        check_on_cpu(p, {"x": x})


def test_rows_and_columns_of_several_axes():
    a, b, c, d = var("a", 3), var("b", 5), var("c", 40), var("d", 7)
    x = load("x", a * 1400 + c * 35 + b * 7 + d)  # memory order is a, c, b, d
    for anchor in ("row_reduce", "column_reduce"):
        phases = (
            Phase((c, d), folds=(Fold("m", "sum", F32, x),), keeps=(Keep("v", x),)),
            Phase((), keeps=(Keep("mean", op("mul", ref("m"), lit(1 / 280))),)),
            Phase((c, d), stores=(
                Store("y", a * 1400 + c * 35 + b * 7 + d, op("sub", ref("v"), ref("mean"))),
            )),
        )
        k = kernel("centre", anchor, (a, b), phases)
        p = program([buffer("x", (3, 40, 5, 7)), buffer("y", (3, 40, 5, 7), "output")], k)
        check_on_cpu(p, {"x": torch.randn(3, 40, 5, 7)}, rtol=1e-5, atol=1e-6)
