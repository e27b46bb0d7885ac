"""Reductions built by hand, in both anchors and with any tile, with what eager torch gives."""

from dataclasses import replace

import torch

from emit.nests import F32, Case, buffer, kernel, lit, load, op, program, ref, var
from fusewright.ir import body as b
from fusewright.ir import dtypes as dt
from fusewright.ir import index as ix
from fusewright.ir.kernel import Fold, Keep, Phase, Program, Store, Tile

ANCHORS = ("row_reduce", "column_reduce")


def layout(anchor, rows, cols):
    """Row and column variables, the shape and the offset of an array that the anchor suits."""
    i, j = var("i", rows), var("j", cols)
    if anchor != "column_reduce":
        return i, j, (rows, cols), i * cols + j
    return i, j, (cols, rows), j * rows + i


def by_rows(anchor, x):
    """The array with the reduced axis last."""
    return x if anchor != "column_reduce" else x.t()


def tiled(p: Program, tile: Tile) -> Program:
    """The program with the tile in its only kernel."""
    return replace(p, steps=(replace(p.steps[0], tile=tile),))


def softmax(anchor, rows, cols, tile=None) -> Case:
    i, j, shape, offset = layout(anchor, rows, cols)
    x = load("x", offset)
    power = op("exp", op("sub", x, ref("top")))
    phases = (
        Phase((j,), folds=(Fold("top", "max", F32, x),)),
        Phase((j,), (Fold("total", "sum", F32, ref("power")),), keeps=(Keep("power", power),)),
        Phase((j,), stores=(Store("y", offset, op("div", ref("power"), ref("total"))),)),
    )
    k = kernel("softmax", anchor, (i,), phases, tile)
    data = torch.randn(shape) * 4
    expected = data.double().softmax(1 if anchor != "column_reduce" else 0).float()
    p = program([buffer("x", shape), buffer("y", shape, "output")], k)
    return Case(p, {"x": data}, (expected,))


EAGER = {"max": "amax", "min": "amin"}


def folds(anchor, x, kinds, dtype=F32, tile=None) -> Case:
    """Several folds of one array (given with the reduced axis last), an output for each."""
    rows, cols = x.shape
    i, j, shape, offset = layout(anchor, rows, cols)
    value = load("x", offset, dtype)
    arg = {"argmax", "argmin"}
    made = [Fold(f"f_{k}", k, dtype, value, j if k in arg else None) for k in kinds]
    types = [dt.INT64 if k in arg else dtype for k in kinds]
    stores = [Store(f"y_{k}", i * 1, ref(f"f_{k}", t)) for k, t in zip(kinds, types, strict=True)]
    phases = (Phase((j,), folds=tuple(made)), Phase((), stores=tuple(stores)))
    outputs = [buffer(f"y_{k}", (rows,), "output", t) for k, t in zip(kinds, types, strict=True)]
    p = program(
        [buffer("x", shape, dtype=dtype), *outputs], kernel("folds", anchor, (i,), phases, tile)
    )
    given = x if anchor != "column_reduce" else x.t().contiguous()
    return Case(p, {"x": given}, tuple(getattr(x, EAGER.get(k, k))(1) for k in kinds))


def special_values(rows, cols):
    """Many ties, NaN, infinities."""
    x = torch.randint(-3, 4, (rows, cols)).float()
    x[3, cols // 2] = x[3, cols - 2] = float("nan")
    x[4] = float("-inf")
    x[5] = float("inf")
    x[6, 10] = float("inf")
    return x


def all_folds(anchor, tile=None) -> list[Case]:
    """Every fold kind on the types it is for."""
    floats = special_values(40, 76)
    ints = torch.randint(-1, 2, (12, 50))
    return [
        folds(anchor, floats, ("max", "min", "sum", "argmax", "argmin"), tile=tile),
        folds(anchor, floats.double(), ("sum", "prod", "max"), dt.FLOAT64, tile),
        folds(anchor, ints, ("sum", "max", "min", "prod"), dt.INT64, tile),
        folds(anchor, ints > 0, ("any", "all"), dt.BOOL, tile),
    ]


def norm(anchor, tile=None) -> Case:
    """Several axes; kept values, a value per row, loads along rows only and along columns only."""
    a, b, c, d = var("a", 3), var("b", 8), var("c", 5), var("d", 12)
    offset = a * 480 + c * 96 + d * 8 + b if anchor == "column_reduce" else \
        a * 480 + b * 60 + c * 12 + d
    centred = op("sub", ref("v"), ref("mean"))
    scaled = op("mul", op("mul", centred, load("scale", c * 12 + d)), load("bias", b))
    phases = (
        Phase((c, d), (Fold("m", "sum", F32, ref("v")),), keeps=(Keep("v", load("x", offset)),)),
        Phase((), keeps=(Keep("mean", op("mul", ref("m"), lit(1 / 60))),)),
        Phase((c, d), folds=(Fold("q", "sum", F32, op("mul", centred, centred)),)),
        Phase((), stores=(Store("z", a * 8 + b, op("add", ref("q"), load("bias", b))),)),
        Phase((c, d), stores=(Store("y", offset, scaled),)),
    )
    k = kernel("norm", anchor, (a, b), phases, tile)
    x, bias, scale = torch.randn(3, 8, 60), torch.randn(8), torch.randn(60)
    middle = x.double() - x.double().mean(2, keepdim=True)
    y = (middle * scale * bias[:, None]).float()
    z = (middle.square().sum(2) + bias).float()
    order = (lambda t: t.transpose(1, 2).contiguous()) if anchor == "column_reduce" else \
        (lambda t: t)
    p = program(
        [buffer("x", (1440,)), buffer("bias", (8,)), buffer("scale", (60,)),
         buffer("y", (1440,), "output"), buffer("z", (24,), "output")], k)
    inputs = {"x": order(x).reshape(-1), "bias": bias, "scale": scale}
    return Case(p, inputs, (order(y).reshape(-1), z.reshape(-1)))


def bag(anchor, tile=None) -> Case:
    """Sums of the rows of a table that int64 indices choose."""
    i, j, k = var("i", 6), var("j", 16), var("k", 10)
    row = b.Checked(dt.INT64, load("at", i * 10 + k, dt.INT64), 9)
    total = Fold("total", "sum", F32, b.Load(F32, "table", ix.as_index(j), ((row, 16),)))
    phases = (Phase((k,), folds=(total,)),
              Phase((), stores=(Store("y", i * 16 + j, ref("total")),)))
    at, table = torch.randint(0, 9, (6, 10)), torch.randn(9, 16)
    buffers = [buffer("at", (6, 10), dtype=dt.INT64), buffer("table", (9, 16)),
               buffer("y", (6, 16), "output")]
    p = program(buffers, kernel("bag", anchor, (i, j), phases, tile))
    return Case(p, {"at": at, "table": table}, (table[at].double().sum(1).float(),))
