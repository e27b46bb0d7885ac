"""Scans built by hand, in both anchors, directions and with any tile, with what eager gives."""

import torch

from emit.nests import F32, Case, buffer, kernel, load, op, program, ref, var
from fusewright.ir import dtypes as dt
from fusewright.ir.kernel import Fold, Phase, Prefix, Store, Tile
from fusewright.run.scalars import scan

ANCHORS = ("row_scan", "column_scan")
ARG = ("argmax", "argmin")


def _layout(anchor, shape):
    """Row and column variables, and the offset of an array of (rows, cols) that suits."""
    rows, cols = shape
    i, k = var("i", rows), var("k", cols)
    return i, k, i * cols + k if anchor == "row_scan" else k * rows + i


def _given(anchor, x):
    return x if anchor == "row_scan" else x.t().contiguous()


def running(anchor, x, kinds, dtype=F32, tile=None, reverse=False, exclusive=False) -> Case:
    """Several scans of one array of (rows, cols) along its columns, an output for each."""
    i, k, offset = _layout(anchor, x.shape)
    value = load("x", offset, dtype)
    scans = [
        Prefix(f"s_{n}", n, dtype, value, reverse, exclusive, k if n in ARG else None)
        for n in kinds
    ]
    stores = tuple(Store(f"y_{s.kind}", offset, ref(s.name, s.result_dtype)) for s in scans)
    shape = _given(anchor, x).shape
    outputs = [buffer(f"y_{s.kind}", shape, "output", s.result_dtype) for s in scans]
    nest = kernel("scans", anchor, (i,), (Phase((k,), stores=stores, scans=tuple(scans)),), tile)
    expected = tuple(_given(anchor, scan(n, x, 1, reverse, exclusive)) for n in kinds)
    p = program([buffer("x", shape, dtype=dtype), *outputs], nest)
    return Case(p, {"x": _given(anchor, x)}, expected)


def softmax_then_scan(anchor, x, tile=None) -> Case:
    """Folds before a scan; a scan of a scan; folds and epilogues beside it; a broadcast operand."""
    i, k, offset = _layout(anchor, x.shape)
    power = op("exp", op("sub", load("x", offset), ref("top")))
    once = Prefix("once", "sum", F32, op("mul", power, load("w", k)), reverse=True)
    twice = Prefix("twice", "max", F32, op("sub", ref("once"), load("x", offset)), reverse=True)
    phases = (
        Phase((k,), (Fold("top", "max", F32, load("x", offset)),)),
        Phase(
            (k,),
            (Fold("total", "sum", F32, ref("twice")), Fold("at", "argmax", F32, ref("once"), k)),
            (Store("y", offset, op("add", ref("twice"), load("x", offset))),),
            scans=(once, twice),
        ),
        Phase(
            (), stores=(Store("z", i * 1, ref("total")), Store("at", i * 1, ref("at", dt.INT64)))
        ),
    )
    rows, cols = x.shape
    shape, w = _given(anchor, x).shape, torch.rand(cols)
    buffers = [buffer("x", shape), buffer("w", (cols,)), buffer("y", shape, "output"),
               buffer("z", (rows,), "output"), buffer("at", (rows,), "output", dt.INT64)]
    d = x.double()
    s = scan("sum", (d - d.amax(1, keepdim=True)).exp() * w, 1, True, False)
    t = scan("max", s - d, 1, True, False)
    expected = (_given(anchor, (t + d).float()), t.sum(1).float(), s.argmax(1))
    p = program(buffers, kernel("mixed", anchor, (i,), phases, tile))
    return Case(p, {"x": _given(anchor, x), "w": w}, expected)


def special(rows, cols):
    """Many ties; NaN and infinities in some rows."""
    x = torch.randint(-3, 4, (rows, cols)).float()
    x[1, cols // 2] = x[1, cols // 3] = float("nan")
    x[2] = float("-inf")
    x[3, cols // 2] = float("inf")
    return x


def every_scan(anchor, rows, cols, tile=None) -> list[Case]:
    """Every kind on the types it is for, both ways, inclusive and exclusive."""
    x, small = special(rows, cols), torch.rand(rows, cols) + 0.5
    ints = torch.randint(-1, 2, (rows, cols))
    exact, near = ("max", "min"), ("sum", "prod", "logsumexp")
    cases = []
    for reverse in (False, True):
        cases.append(running(anchor, x, (*exact, *ARG), F32, tile, reverse))
        cases.append(running(anchor, ints, ("sum", *ARG), dt.INT64, tile, reverse))
        cases.append(running(anchor, ints > 0, exact, dt.BOOL, tile, reverse))
        for exclusive in (False, True):
            ways = (tile, reverse, exclusive)
            cases.append(running(anchor, small, near, F32, *ways))
            cases.append(running(anchor, x, ("sum",), F32, *ways))
            cases.append(running(anchor, small.double(), ("sum", "prod"), dt.FLOAT64, *ways))
            cases.append(running(anchor, ints, ("prod", "sum"), dt.INT64, *ways))
            cases.append(running(anchor, small.double(), ("sum", "min"), dt.FLOAT64, *ways))
    return cases


TILES = {
    "row_scan": [
        Tile(64, 1, 1, 1),
        Tile(64, 2, 2, 8),
        Tile(64, 4, 3, 32, 2),
        Tile(64, 4, 2, 64, 2),
        Tile(128, 1, 4, 128),
    ],
    "column_scan": [
        Tile(64, 1, 4, 1, 2),
        Tile(64, 4, 2, 2),
        Tile(64, 2, 3, 8, 2),
        Tile(32, 1, 16, 1),
        Tile(128, 4, 1, 16),
    ],
}
