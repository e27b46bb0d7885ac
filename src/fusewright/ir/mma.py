"""Contractions on tensor cores through mma.sync: what schedule and emission agree on.

The device code is emit/skeletons/gemm_mma.cuh, whose constants are repeated here. Whether such a
kernel pays is the schedule's business.
"""

from dataclasses import dataclass

from .kernel import Kernel, Scheme
from .native import Layout, NativePlan, Operand, Strides, layout_of, partial_bytes, plan_of, up

# Rows and columns of a block; columns of a warp.
TILE, WARP_COLUMNS = 128, 64
# Bytes along k that a block takes at once; elements that the scheme six adds up in registers.
SLICE, CHAIN = 64, 4096


@dataclass(frozen=True, slots=True)
class Kind:
    """How operands are taken: format, planes and bytes per element of a copy; a warp's rows."""

    format: str
    planes: int
    size: int
    warp_rows: int


_KINDS: dict[Scheme, Kind] = {
    "native": Kind("tiles::Unchanged", 1, 2, 64),
    "bf16": Kind("tiles::ToBfloat16", 1, 2, 64),
    "tf32": Kind("tiles::ToTf32", 1, 4, 64),
    "six": Kind("tiles::ToThirds", 3, 2, 32),
}


def kind_of(scheme: Scheme) -> Kind:
    return _KINDS[scheme]


def mma_plan(kernel: Kernel) -> NativePlan:
    """The plan of a contraction kernel: operands as they are where copies of 16 bytes can be."""

    def layout(strides: Strides, offset: int, rows: int) -> Layout:
        direct = kernel.scheme == "native" and layout_of(strides, offset, rows) == "kAlongK"
        return "kAlongK" if direct else "kPacked"

    return plan_of(kernel, layout)


def workspace_bytes(kernel: Kernel) -> int:
    """Bytes the skeleton needs: copies of operands, sums of long chains, partial results of folds;
    at least 1."""
    p, kind = mma_plan(kernel), kind_of(kernel.scheme)
    across = -(-p.n // TILE) * (TILE // min(WARP_COLUMNS, 32 * p.run))
    size = sum(_copy(x, p, kind) for x in (p.a, p.b) if x.layout == "kPacked")
    if kind.planes > 1 and p.k > CHAIN:
        size += p.batch * -(-p.m // TILE) * -(-p.n // TILE) * TILE * TILE * 4
    return max(1, size + partial_bytes(kernel, p, across, -(-p.m // kind.warp_rows)))


def _copy(x: Operand, p: NativePlan, kind: Kind) -> int:
    """A packed copy, and where it has several planes the exponents of its rows."""
    rows = (p.batch if x.strides[2] else 1) * x.rows
    shifts = up(rows * 4, 256) if kind.planes > 1 else 0
    return up(kind.planes * rows * up(p.k * kind.size, 16), 256) + shifts
