"""Contractions that run in a type of Hopper's tensor cores: what schedule and emission agree on.

A plan is read off the kernel: how each operand is taken, the tile, the workspace. The device code
is emit/skeletons/native_sm90*.cuh, whose constants are repeated here. Whether such a kernel pays is
the schedule's business.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from . import index as ix
from .body import Expr, Load
from .index import Index, Var
from .kernel import Kernel, dot_of
from .onepass import partials_of

Layout = Literal["kAlongK", "kAcross", "kPacked", "kAlongK4", "kAcross4"]
Strides = tuple[int, int, int]  # of rows, of k, of batches
# Columns of a tile and rows of a cluster's; rows and columns that share a partial result.
WIDE, NARROW, CLUSTER_ROWS = 256, 128, 256
FOLD_ROWS, SLAB = 16, 128
# Up to so many wide tiles, narrow ones occupy more of the device.
FEW_TILES = 32
# Elements along the columns that the epilogue takes at once, at most.
MOST_RUN = 8


@dataclass(frozen=True, slots=True)
class Operand:
    """One operand: `rows` x k elements at strides (row, k, batch) from `offset` of its buffer."""

    load: Load
    rows: int
    strides: Strides
    offset: int
    layout: Layout


@dataclass(frozen=True, slots=True)
class NativePlan:
    """A product as the skeleton computes it: `a` has the rows of the result, `b` its columns."""

    a: Operand
    b: Operand
    batch: int
    m: int
    n: int
    k: int

    @property
    def columns(self) -> int:
        """Of a tile."""
        return tile_columns(self.batch, self.m, self.n)

    @property
    def run(self) -> int:
        """Columns that the epilogue takes at once: a power of two that divides them all."""
        return min(MOST_RUN, self.n & -self.n)


def tile_columns(batch: int, m: int, n: int) -> int:
    """Narrow tiles where wide ones would leave most of the device idle."""
    wide = batch * -(-m // CLUSTER_ROWS) * -(-n // WIDE)
    return NARROW if wide <= FEW_TILES else WIDE


def native_plan(kernel: Kernel) -> NativePlan:
    """The plan of a contraction kernel of a native scheme."""
    native = kernel.scheme == "native"
    return plan_of(kernel, layout_of if native else lambda strides, offset, rows: "kPacked")


def plan_of(kernel: Kernel, layout: Callable[[Strides, int, int], Layout]) -> NativePlan:
    """The plan of a contraction kernel; `layout` of an operand's strides, offset and rows."""
    dot = dot_of(kernel)
    axes = {v.name: v for v in (*kernel.rows, *kernel.phases[0].cols)}
    one: Index = ix.const(0)
    batch, m, n = (axes.get(name, one) for name in ("b", "m", "n"))

    def operand(load: Expr, row: Index) -> Operand:
        assert isinstance(load, Load)
        strides, offset = _strides(load, (row, dot.k, batch))
        rows = row.hi + 1
        return Operand(load, rows, strides, offset, layout(strides, offset, rows))

    a, b = operand(dot.x, m), operand(dot.y, n)
    return NativePlan(a, b, batch.hi + 1, m.hi + 1, n.hi + 1, dot.k.extent)


def _strides(load: Load, axes: tuple[Index, Index, Index]) -> tuple[Strides, int]:
    """The strides of a load along the axes, and its offset at their origin."""
    start = ix.substitute(load.offset, {v: ix.const(0) for v in axes if isinstance(v, Var)})
    row, k, batch = (
        (ix.coefficient(load.offset, v) or 0) if isinstance(v, Var) else 0 for v in axes
    )
    return (row, k, batch), ix.constant_value(start) or 0


def layout_of(strides: Strides, offset: int, rows: int) -> Layout:
    """How a 16-bit operand is taken: as it is where bulk copies can address it (16 bytes)."""
    row, k, batch = strides
    aligned = offset % 8 == 0 and batch % 8 == 0
    if aligned and k == 1 and (rows == 1 or (row > 0 and row % 8 == 0)):
        return "kAlongK"
    return "kAcross" if aligned and row == 1 and k > 0 and k % 8 == 0 else "kPacked"


def workspace_bytes(kernel: Kernel) -> int:
    """Bytes the skeleton needs: `plan_of` of emit/skeletons/native_sm90_launch.cuh; at least 1."""
    p = native_plan(kernel)
    width = min(SLAB, 32 * p.run)
    across = -(-p.n // p.columns) * (p.columns // width)
    partial = partial_bytes(kernel, p, across, -(-p.m // FOLD_ROWS))
    size = 4 if kernel.scheme == "tf32" else 2
    copies = (
        (p.batch if x.strides[2] else 1) * x.rows * up(p.k, 16 // size) * size
        for x in (p.a, p.b)
        if x.layout == "kPacked"
    )
    return max(1, sum(up(x, 256) for x in (partial, *copies)))


def partial_bytes(kernel: Kernel, p: NativePlan, across: int, down: int) -> int:
    """Bytes of its folds' partial results: `across` of each row, or `down` of each column."""
    words = sum(x.words for x in partials_of(kernel.phases) or ())
    over_n = "n" in {v.name for v in kernel.phases[0].cols}
    return p.batch * words * 4 * (across * p.m if over_n else down * p.n)


def up(x: int, to: int) -> int:
    """`x` rounded up to a multiple."""
    return -(-x // to) * to
