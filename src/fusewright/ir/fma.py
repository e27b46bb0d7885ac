"""Float32 contractions by multiply-adds: what schedule and emission agree on.

The device code is emit/skeletons/gemm_fma.cuh, whose constants are repeated here. The tile is the
kernel's: a thread has `items` rows and `lanes` columns of the result. Whether such a kernel pays is
the schedule's business.
"""

from dataclasses import dataclass

from .kernel import Kernel, Tile
from .native import Layout, NativePlan, Strides, partial_bytes, plan_of

# Elements along the columns that the epilogue takes at once, at most.
MOST_RUN = 4


@dataclass(frozen=True, slots=True)
class FmaTile:
    """The part of the result that a block of four warps computes, two by two."""

    warp_rows: int
    warp_columns: int

    @property
    def rows(self) -> int:
        return 2 * self.warp_rows

    @property
    def columns(self) -> int:
        return 2 * self.warp_columns


def fma_tile(tile: Tile) -> FmaTile:
    """A warp has 4 x 8 threads."""
    return FmaTile(4 * tile.items, 8 * tile.lanes)


def fma_plan(kernel: Kernel) -> NativePlan:
    """The plan of a contraction kernel of scheme fma."""
    return plan_of(kernel, layout_of)


def fma_run(n: int) -> int:
    """Columns that the epilogue takes at once: a power of two that divides them all."""
    return min(MOST_RUN, n & -n)


def layout_of(strides: Strides, offset: int, rows: int) -> Layout:
    """How a float32 operand is read: by 16 bytes along k or across its rows, or one by one."""
    row, k, batch = strides
    aligned = offset % 4 == 0 and batch % 4 == 0
    if k == 1:
        return "kAlongK4" if aligned and row % 4 == 0 else "kAlongK"
    if row == 1:
        return "kAcross4" if aligned and k % 4 == 0 and rows % 4 == 0 else "kAcross"
    return "kAlongK" if k <= row else "kAcross"


def workspace_bytes(kernel: Kernel) -> int:
    """Bytes the skeleton needs: partial results of folds; at least 1."""
    p, tile = fma_plan(kernel), fma_tile(kernel.tile)
    width = min(tile.warp_columns, 32 * fma_run(p.n))
    across = -(-p.n // tile.columns) * (tile.columns // width)
    return max(1, partial_bytes(kernel, p, across, -(-p.m // tile.warp_rows)))
