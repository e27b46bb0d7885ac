"""Folds over sliding windows built by hand: any rank, stride, dilation, padding, fold and tile."""

import random
from dataclasses import dataclass
from math import prod

import torch

from emit.nests import F32, Case, buffer, kernel, lit, load, op, program, ref, var
from fusewright.ir import body as b
from fusewright.ir import dtypes as dt
from fusewright.ir import index as ix
from fusewright.ir import offsets
from fusewright.ir.kernel import Fold, Phase, Program, Store, Tile
from fusewright.ir.scalar import identity
from fusewright.run.interpret import interpret_program


@dataclass(frozen=True)
class Window:
    """One axis: extent of the input, window, stride, dilation, padding."""

    extent: int
    size: int
    stride: int = 1
    dilation: int = 1
    padding: int = 0

    @property
    def count(self) -> int:
        reach = self.dilation * (self.size - 1) + 1
        return (self.extent + 2 * self.padding - reach) // self.stride + 1


def pooled(axes, tile, kinds=("max",), outer=3, dtype=F32, squared=False) -> Case:
    """Folds over windows of `axes`, plus a value per outer row; an output for each of `kinds`."""
    at, cols, conds, rows = [], [], [], [var("i", outer)]
    for n, w in enumerate(axes):
        row, col = ix.var(f"o{n}", w.count), ix.var(f"k{n}", w.size)
        rows += [row] if isinstance(row, ix.Var) else []
        cols += [col] if isinstance(col, ix.Var) else []
        at.append(row * w.stride + col * w.dilation - w.padding)
        conds += ix.inside(at[-1], w.extent)
    shape = (outer, *(w.extent for w in axes))
    x = load("x", offsets.flatten([rows[0], *at], offsets.row_major(shape)), dtype)
    if squared:
        x = op("mul", x, op("add", x, load("bias", rows[0], dtype)))
    folds, stores, outputs = [], [], []
    counts = (outer, *(w.count for w in axes))
    place = offsets.flatten([rows[0], *ix.axes(counts)[1:]], offsets.row_major(counts))
    names = {a: ix.var(f"o{n}", w.count) for n, (a, w) in
             enumerate(zip(ix.axes(counts)[1:], axes, strict=True))}
    place = ix.substitute(place, names)
    for kind in kinds:
        body = b.guarded(ix.conjunction(conds), x, lit(identity(kind, dtype), dtype))
        folds.append(Fold(f"f_{kind}", kind, dtype, body))
        value = op("add", ref(f"f_{kind}", dtype), load("bias", rows[0], dtype))
        stores.append(Store(f"y_{kind}", place, value))
        outputs.append(buffer(f"y_{kind}", counts, "output", dtype))
    phases = (Phase(tuple(cols), tuple(folds)), Phase((), stores=tuple(stores)))
    k = kernel("pool", "window", rows, phases, tile)
    p = program([buffer("x", shape, dtype=dtype), buffer("bias", (outer,), dtype=dtype),
                 *outputs], k)
    inputs = {"x": torch.randn(shape), "bias": torch.randn(outer)}
    inputs["x"].view(-1)[prod(shape) // 3] = float("nan")
    inputs = {n: v.to(getattr(torch, dtype.name)) for n, v in inputs.items()}
    return Case(p, inputs, expected(p, inputs))


def expected(p: Program, inputs) -> tuple[torch.Tensor, ...]:
    return tuple(interpret_program(p, inputs).outputs)


def drawn(seed: int) -> Case:
    """A case by chance."""
    rng = random.Random(seed)
    axes = []
    for _ in range(rng.choice((1, 2, 2, 3))):
        size, stride, dilation = rng.randint(1, 5), rng.randint(1, 4), rng.randint(1, 3)
        reach = dilation * (size - 1) + 1
        extent = rng.choice((4, 7, 12, 16, 33)) + reach
        axes.append(Window(extent, size, stride, dilation, rng.randint(0, size // 2)))
    if axes[-1].size == 1:
        axes[-1] = Window(axes[-1].extent + 3, 3, axes[-1].stride)
    lanes = rng.choice((4, 8, 16, 32))
    tile = Tile(lanes * rng.choice((1, 2, 4)), rng.choice((1, 2, 4)), rng.randint(1, 3), lanes,
                rng.choice((1, 2, 5)))
    kinds = rng.choice((("max",), ("sum",), ("min", "sum"), ("prod",)))
    dtype = rng.choice((F32, F32, dt.FLOAT64, dt.BFLOAT16)) if kinds == ("max",) else F32
    return pooled(axes, tile, kinds, rng.choice((1, 3, 5)), dtype, dtype == F32 and seed % 2 == 0)
