"""The window anchor: kernels run on the CPU through fibers, against the interpreter."""

import re

import pytest

from emit.nests import check_together, run_on_simt
from emit.windows import Window, drawn, pooled
from fusewright.emit.cuda import cuda_kernel
from fusewright.errors import IRError
from fusewright.ir.kernel import Tile
from fusewright.ir.sliding import Layout, sliding

WHOLE, TILED = Tile(64, 4, 2, 32, 3), Tile(16, 2, 2, 16, 2)


def text(case) -> str:
    buffers = {b.name: b for b in case.program.buffers}
    return cuda_kernel(case.program.steps[0], buffers).device


def fits(case) -> bool:
    kernel = case.program.steps[0]
    windows = sliding(kernel.rows, kernel.phases)
    return windows is not None and Layout(windows, kernel.tile).outputs > 0


@pytest.mark.parametrize("part", range(3))
def test_windows_by_chance(part):
    cases = [c for seed in range(40) if fits(c := drawn(100 * part + seed))]
    assert len(cases) > 30
    check_together(cases, run_on_simt, rtol=3e-5, atol=1e-5)


@pytest.mark.parametrize("tile", [WHOLE, TILED])
def test_places_are_loaded_by_vectors_ahead_of_their_step(tile):
    case = pooled([Window(40, 4, padding=1), Window(64, 3, padding=1)], tile)
    loads = re.findall(r"fw_load<(\d)>\(x ", text(case))
    # The rows above the first step, its own, and in each step those of the next.
    assert loads == [str(tile.vector)] * 3
    assert not re.search(r"\bx\[", text(case).split("__global__")[1])


def test_padding_at_the_ends_of_a_row_costs_no_condition():
    case = pooled([Window(40, 4, padding=1), Window(128, 3, padding=1)], Tile(32, 4, 2, 32, 3))
    assert "o1_at <" not in text(case) and "o1_at >" not in text(case)


def test_what_does_not_slide_is_refused():
    case = pooled([Window(40, 4, 9)], WHOLE)  # a stride that shares nothing
    with pytest.raises(IRError, match="does not slide"):
        text(case)


def test_a_tile_without_room_for_a_window_is_refused():
    case = pooled([Window(4000, 5, dilation=8)], Tile(4, 4, 1, 4, 1))
    with pytest.raises(IRError, match="no window fits"):
        text(case)
