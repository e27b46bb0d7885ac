"""Pointwise kernels in both dialects: accesses of every shape, guards, gathers, storage types."""

from dataclasses import replace

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
    run_on_cpu,
    run_on_simt,
    var,
)
from fusewright.ir import body as b
from fusewright.ir import dtypes as dt
from fusewright.ir import index as ix
from fusewright.ir.kernel import Phase, Store, Tile

RUNS = {"cpu": run_on_cpu, "cuda": run_on_simt}
# threads, vector, items
TILES = [Tile(32, 1, 1), Tile(32, 4, 1), Tile(64, 2, 3), Tile(32, 8, 2)]


def pointwise(rows, stores, buffers, tile, inputs, expected, name="k"):
    """One kernel that stores `expected`, in the order of the output buffers."""
    k = kernel(name, "elementwise", rows, (Phase((), stores=tuple(stores)),), tile)
    return Case(program(buffers, k), inputs, expected)


def broadcast(tile):
    """(rows, cols) + a value per column + a value per row, stored transposed too."""
    i, j = var("i", 6), var("j", 40)
    total = op("add", op("add", load("x", i * 40 + j), load("c", j)), load("r", i))
    x, c, r = torch.randn(6, 40), torch.randn(40), torch.randn(6)
    buffers = [
        buffer("x", (6, 40)), buffer("c", (40,)), buffer("r", (6,)),
        buffer("y", (6, 40), "output"), buffer("t", (40, 6), "output"),
    ]
    stores = [Store("y", i * 40 + j, total), Store("t", j * 6 + i, total)]
    y = x + c + r[:, None]
    return pointwise((i, j), stores, buffers, tile, {"x": x, "c": c, "r": r}, (y, y.t()))


def in_turn(tile):
    """Blocks that walk the outermost axis first."""
    return broadcast(replace(tile, lanes=6))


def odd(tile):
    """A size that no vector divides."""
    n = var("n", 1237)
    x = torch.randn(1237)
    buffers = [buffer("x", (1237,)), buffer("y", (1237,), "output")]
    store = Store("y", n * 1, op("mul", load("x", n), lit(2.0)))
    return pointwise((n,), [store], buffers, tile, {"x": x}, (x * 2,))


def padded(tile):
    """Padding by 2 left, 3 right and 1 above: loads only inside."""
    i, j = var("i", 5), var("j", 24)
    inside = ix.conjunction((*ix.inside(j - 2, 19), *ix.inside(i - 1, 4)))
    value = b.guarded(inside, load("x", (i - 1) * 19 + (j - 2)), lit(-1.5))
    x = torch.randn(4, 19)
    y = torch.nn.functional.pad(x, (2, 3, 1, 0), value=-1.5)
    buffers = [buffer("x", (4, 19)), buffer("y", (5, 24), "output")]
    return pointwise((i, j), [Store("y", i * 24 + j, value)], buffers, tile, {"x": x}, (y,))


def concatenated(tile):
    """Three arrays one below the other (guards uniform in a vector), with arithmetic inside."""
    i, j = var("i", 9), var("j", 8)
    third = op("neg", load("c", (i - 7) * 8 + j))
    rest = b.guarded((ix.less(i, 7),), load("b", (i - 3) * 8 + j), third)
    value = b.guarded((ix.less(i, 3),), op("exp", load("a", i * 8 + j)), rest)
    a, m, c = torch.randn(3, 8), torch.randn(4, 8), torch.randn(2, 8)
    buffers = [
        buffer("a", (3, 8)), buffer("b", (4, 8)), buffer("c", (2, 8)),
        buffer("y", (9, 8), "output"),
    ]
    y = torch.cat([a.exp(), m, -c])
    inputs = {"a": a, "b": m, "c": c}
    return pointwise((i, j), [Store("y", i * 8 + j, value)], buffers, tile, inputs, (y,))


def embedded(tile):
    """Rows of a table by an int32 index, negative ones from the end."""
    i, j = var("i", 7), var("j", 12)
    at = b.Convert(dt.INT64, load("at", i * 1, dt.INT32))
    wrapped = b.Choose(dt.INT64, op("lt", at, lit(0, dt.INT64)),
                       op("add", at, lit(5, dt.INT64)), at)
    row = b.Checked(dt.INT64, wrapped, 5)
    value = b.Load(F32, "table", ix.as_index(j), ((row, 12),))
    at_data, table = torch.tensor([0, 4, -1, 2, -5, 1, 3], dtype=torch.int32), torch.randn(5, 12)
    buffers = [
        buffer("at", (7,), dtype=dt.INT32), buffer("table", (5, 12)),
        buffer("y", (7, 12), "output"),
    ]
    inputs = {"at": at_data, "table": table}
    store = Store("y", i * 12 + j, value)
    return pointwise((i, j), [store], buffers, tile, inputs, (table[at_data.long()],))


def positions(tile):
    """The row-major number of a point, floor-divided and wrapped, as int64 and as float."""
    i, j = var("i", 6), var("j", 10)
    number = (i * 10 + j) % 7 + (j - 4) // 3
    stores = [
        Store("y", i * 10 + j, b.Coord(dt.INT64, number)),
        Store("z", i * 10 + j, op("mul", b.Coord(F32, j * 1), lit(0.5))),
    ]
    at = torch.arange(60).view(6, 10)
    y = at % 7 + torch.div(at % 10 - 4, 3, rounding_mode="floor")
    buffers = [buffer("y", (6, 10), "output", dt.INT64), buffer("z", (6, 10), "output")]
    return pointwise((i, j), stores, buffers, tile, {}, (y, (at % 10) * 0.5))


def single(tile):
    """No axes at all."""
    x = torch.randn(())
    buffers = [buffer("x", ()), buffer("y", (), "output")]
    store = Store("y", ix.const(0), op("exp", load("x", 0)))
    return pointwise((), [store], buffers, tile, {"x": x}, (x.exp(),))


def stored_as(dtype, tile):
    """Every 16-bit pattern as float and back, and rounding of float32 to the type."""
    torch_dtype = getattr(torch, dtype.name)
    n = var("n", 1 << 16)
    bits = torch.arange(-(1 << 15), 1 << 15).to(torch.int16)
    x = bits.view(torch_dtype)
    wide = torch.randint(-(1 << 31), 1 << 31, (1 << 16,)).to(torch.int32).view(torch.float32)
    halfway = x.float() * (1 + 2.0**-9)  # ties of bfloat16, among others
    wide[::2] = halfway[::2]
    stores = [
        Store("y", n * 1, b.Convert(F32, load("x", n, dtype))),
        Store("z", n * 1, b.Convert(dtype, load("w", n))),
    ]
    buffers = [
        buffer("x", (1 << 16,), dtype=dtype), buffer("w", (1 << 16,)),
        buffer("y", (1 << 16,), "output"), buffer("z", (1 << 16,), "output", dtype),
    ]
    inputs = {"x": x, "w": wide}
    return pointwise((n,), stores, buffers, tile, inputs, (x.float(), wide.to(torch_dtype)))


def shared_values(tile):
    """A value used inside and outside of a guard, and one used in both of its branches."""
    i, j = var("i", 3), var("j", 16)
    x = load("x", i * 16 + j)
    e = op("exp", x)
    left = op("add", e, op("mul", load("w", j), load("w", j)))
    guarded = b.guarded((ix.less(j, 8),), left, op("sub", x, lit(1.0)))
    data, w = torch.randn(3, 16), torch.randn(16)
    y = torch.where(torch.arange(16) < 8, data.exp() + w * w, data - 1)
    buffers = [
        buffer("x", (3, 16)), buffer("w", (16,)),
        buffer("y", (3, 16), "output"), buffer("z", (3, 16), "output"),
    ]
    stores = [Store("y", i * 16 + j, guarded), Store("z", i * 16 + j, e)]
    return pointwise((i, j), stores, buffers, tile, {"x": data, "w": w}, (y, data.exp()))


MAKERS = (broadcast, in_turn, odd, padded, concatenated, embedded, positions, single, shared_values)


@pytest.mark.parametrize("dialect", RUNS)
def test_every_access_with_every_tile(dialect):
    cases = [make(tile) for make in MAKERS for tile in TILES]
    check_together(cases, RUNS[dialect], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dialect", RUNS)
def test_storage_types_bit_by_bit(dialect):
    cases = [stored_as(d, TILES[1]) for d in (dt.BFLOAT16, dt.FLOAT16)]
    check_together(cases, RUNS[dialect], rtol=0, atol=0)


@pytest.mark.parametrize("dialect", RUNS)
def test_an_index_out_of_range_is_reported(dialect):
    case = embedded(TILES[0])
    case.inputs["at"][3] = 5
    codes, _ = RUNS[dialect](case.program, case.inputs)
    assert len(codes) == 1
    assert codes[0] != 0
