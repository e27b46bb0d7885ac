"""The stencil anchor: kernels built by hand, run on the CPU, against the interpreter."""

import random
import re
from dataclasses import replace
from math import prod

import pytest
import torch

from emit.nests import (
    F32,
    Case,
    buffer,
    check_together,
    kernel,
    lit,
    load,
    op,
    program,
    ref,
    run_on_simt,
    var,
)
from emit.windows import Window, expected
from fusewright.emit.cuda import cuda_kernel
from fusewright.emit.cuda.stencil import unmoved
from fusewright.errors import IRError
from fusewright.ir import body as b
from fusewright.ir import dtypes as dt
from fusewright.ir import index as ix
from fusewright.ir import offsets
from fusewright.ir.kernel import Fold, Phase, Store, Tile
from fusewright.ir.stencil import stencil


def weighted(axes, tile, outer=3, dtype=F32, before="none", kind="sum") -> Case:
    """A fold of places times the taps' weights, with the outer row's bias before and after it."""
    rows, cols, at, conds = [var("i", outer)], [], [], []
    for n, w in enumerate(axes):
        row, col = var(f"o{n}", w.count), ix.var(f"k{n}", w.size)
        rows.append(row)
        cols += [col] if isinstance(col, ix.Var) else []
        at.append(row * w.stride + col * w.dilation - w.padding)
        conds += ix.inside(at[-1], w.extent)
    shape, taps = (outer, *(w.extent for w in axes)), (outer, *(w.size for w in axes))
    x = load("x", offsets.flatten([rows[0], *at], offsets.row_major(shape)), dtype)
    x = b.Convert(F32, x) if dtype != F32 else x
    bias = load("bias", rows[0])
    if before == "relu":
        x = op("maximum", op("sub", x, op("exp", bias)), lit(0.0))
    x = b.guarded(ix.conjunction(conds), x, lit(0.0))
    tap = [ix.var(f"k{n}", w.size) for n, w in enumerate(axes)]
    weight = load("w", offsets.flatten([rows[0], *tap], offsets.row_major(taps)))
    fold = Fold("f", kind, F32, op("mul", x, weight))
    counts = (outer, *(w.count for w in axes))
    place = offsets.flatten(rows, offsets.row_major(counts))
    store = Store("y", place, op("tanh", op("add", ref("f"), bias)))
    phases = (Phase(tuple(cols), (fold,)), Phase((), stores=(store,)))
    k = kernel("blur", "stencil", rows, phases, tile)
    p = program([buffer("x", shape, dtype=dtype), buffer("w", taps), buffer("bias", (outer,)),
                 buffer("y", counts, "output")], k)
    inputs = {"x": torch.randn(shape), "w": torch.randn(taps), "bias": torch.randn(outer)}
    inputs["x"].view(-1)[prod(shape) // 3] = float("nan")
    inputs["x"] = inputs["x"].to(getattr(torch, dtype.name))
    return Case(p, inputs, expected(p, inputs))


def drawn(seed: int) -> Case:
    rng = random.Random(seed)
    torch.manual_seed(seed)
    axes = []
    for n in range(rng.choice((1, 2, 2, 3))):
        size, stride, dilation = rng.randint(1 if n else 2, 5), rng.randint(1, 3), rng.randint(1, 3)
        reach = dilation * (size - 1) + 1
        axes.append(Window(rng.choice((3, 7, 12, 33)) + reach, size, stride, dilation,
                           rng.randint(0, size // 2)))
    tile = Tile(rng.choice((32, 64)), items=rng.randint(1, min(5, *(w.count for w in axes))))
    dtype = rng.choice((F32, F32, dt.BFLOAT16, dt.FLOAT16))
    kind = rng.choice(("sum", "sum", "max"))
    return weighted(axes, tile, rng.choice((2, 5)), dtype, rng.choice(("none", "relu")), kind)


def text(case: Case) -> str:
    return cuda_kernel(case.program.steps[0], {x.name: x for x in case.program.buffers}).device


@pytest.mark.parametrize("part", range(2))
def test_stencils_by_chance(part):
    cases = [drawn(100 * part + seed) for seed in range(30)]
    found = [stencil(c.program.steps[0].rows, c.program.steps[0].phases) for c in cases]
    fitting = [c for c, s in zip(cases, found, strict=True)
               if s is not None and c.program.steps[0].tile.items <= s.row.extent]
    assert len(fitting) > 25
    assert {s.slide is None for s in found} == {True, False}
    check_together(fitting, run_on_simt, rtol=3e-5, atol=1e-5)


def test_windows_of_a_thread_read_a_place_once():
    case = weighted([Window(40, 3, padding=1), Window(64, 3, padding=1)], Tile(64, items=4))
    inside = text(case).split("__global__")[1]
    # Four windows of three places reach over six, for each column of taps; one load reads them.
    assert re.findall(r"x_column\[(\d+)\];", inside) == ["6"]
    assert len(re.findall(r"\bx\[", inside)) == 1 and "for (int k1 = 0; k1 < 3" in inside


def test_the_last_windows_of_a_column_are_stored_by_one_thread():
    ragged = weighted([Window(12, 3), Window(40, 3)], Tile(32, items=4))
    even = weighted([Window(14, 3), Window(40, 3)], Tile(32, items=4))
    assert "if (o0 >= o0_group * 4)" in text(ragged)
    assert "o0 >=" not in text(even)


def test_what_the_outer_row_knows_is_computed_once():
    case = weighted([Window(40, 3), Window(64, 3)], Tile(64), before="relu")
    before, _ = text(case).split("for (int k1", 1)
    assert "expf(bias[" in before or "fw_exp(bias[" in before


def test_a_load_stays_behind_the_guard_that_knows_its_row():
    i, o, k = var("i", 6), var("o", 40), var("k", 3)
    half = load("bias", i)  # three elements: only where i < 3
    body = b.guarded(ix.conjunction(ix.inside(i, 3)), op("mul", half, load("x", o + k)), lit(0.0))
    assert unmoved([body], {o, k}) == []
    assert unmoved([op("mul", half, load("x", o + k))], {o, k}) == [half]


def test_windows_of_sequences_keep_several_loads_in_flight():
    case = weighted([Window(64, 3, padding=1)], Tile(64, items=3))
    inside = text(case).split("__global__")[1]
    assert re.findall(r"x_column\[(\d+)\];", inside) == ["3"] and "i = i_first + place" in inside


def test_a_fold_of_one_row_axis_is_refused():
    case = weighted([Window(64, 3)], Tile(64))
    (k,) = case.program.steps
    single = replace(k, rows=k.rows[1:])
    with pytest.raises(IRError, match="has one row axis"):
        cuda_kernel(single, {x.name: x for x in case.program.buffers})


def test_more_windows_than_rows_are_refused():
    case = weighted([Window(6, 3), Window(64, 3)], Tile(64, items=5))
    with pytest.raises(IRError, match="5 windows in 4 rows"):
        text(case)
