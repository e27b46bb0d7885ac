"""Row and column reductions as CUDA, run on the CPU through fibers: many tiles, ragged sizes."""

import pytest

from emit.kernels import all_folds, bag, norm, softmax
from emit.nests import check_together, run_on_simt
from fusewright.emit.cuda import cuda_kernel
from fusewright.ir.kernel import Tile

# threads, vector, items, lanes
TILES = {
    "row_reduce": [
        Tile(64, 1, 1, 1),
        Tile(64, 2, 2, 8),
        Tile(64, 4, 3, 32),
        Tile(64, 4, 2, 64),
        Tile(128, 1, 4, 128),
    ],
    "row_cluster": [
        Tile(32, 1, 1, 64),
        Tile(64, 4, 2, 256),
        Tile(64, 2, 3, 64),
        Tile(32, 1, 4, 512),
    ],
    "column_reduce": [
        Tile(64, 1, 1, 1),
        Tile(64, 4, 2, 2),
        Tile(64, 2, 3, 8),
        Tile(32, 1, 16, 1),
        Tile(128, 4, 1, 16),
    ],
}
ANCHORS = tuple(TILES)


@pytest.mark.parametrize("anchor", ANCHORS)
def test_softmax(anchor):
    sizes = [(5, 40), (36, 77), (3, 260), (1, 1)]
    cases = [softmax(anchor, r, c, t) for t in TILES[anchor] for r, c in sizes]
    check_together(cases, run_on_simt, rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize("anchor", ANCHORS)
def test_special_values_and_types_in_every_fold(anchor):
    cases = [c for t in TILES[anchor] for c in all_folds(anchor, t)]
    check_together(cases, run_on_simt)


@pytest.mark.parametrize("anchor", ANCHORS)
def test_rows_and_columns_of_several_axes(anchor):
    cases = [norm(anchor, t) for t in TILES[anchor]]
    check_together(cases, run_on_simt, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("anchor", ANCHORS)
def test_gathered_rows(anchor):
    check_together([bag(anchor, t) for t in TILES[anchor]], run_on_simt, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("anchor", ["row_reduce", "column_reduce"])
def test_values_that_exceed_the_registers_are_computed_again(anchor):
    case = softmax(anchor, 33, 600, Tile(64, 1, 2, 1))
    text = cuda_kernel(case.program.steps[0], {b.name: b for b in case.program.buffers}).device
    assert "power[" not in text
    check_together([case], run_on_simt, rtol=2e-6, atol=1e-9)


def test_a_cluster_keeps_a_row_in_one_place_and_reads_memory_once():
    case = softmax("row_cluster", 3, 260, Tile(32, 4, 2, 64))
    kernel = case.program.steps[0]
    text = cuda_kernel(kernel, {b.name: b for b in case.program.buffers})
    chunks, threads, vector_bytes = 2, 32, 16
    assert text.grid.cluster == 2 and text.grid.shared == chunks * threads * vector_bytes
    assert "__cluster_dims__(2)" in text.device
