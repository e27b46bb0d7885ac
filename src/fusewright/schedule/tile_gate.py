"""Whether a product by multiply-adds or by mma.sync pays, and with which tile, from shapes alone.

By multiply-adds it is rarely faster than the library's; what it saves is the passes over its
result. The rates are data of the target (`target.arch.TileProducts`); nothing is timed here.
"""

from fusewright.ir.dtypes import FLOAT32, DType
from fusewright.ir.fma import fma_tile
from fusewright.ir.kernel import Scheme, Tile
from fusewright.ir.mma import SLICE, TILE, kind_of
from fusewright.target.arch import TileProducts, TileRates

from .gate import Size


def best_tile(p: Size, scheme: Scheme, packed: int, rates: TileProducts) -> tuple[float, Tile]:
    """The modelled seconds of the product, what follows included, and its tile; operands of
    `packed` rows in all are copied first."""
    timed = [(_seconds(p, x, rates), x) for x in rates.tiles if x.scheme == scheme]
    seconds, best = min(timed, key=lambda pair: pair[0])
    if scheme == "fma":
        return seconds, Tile(threads=128, items=best.items, lanes=best.lanes)
    kind = kind_of(scheme)
    read = {"native": 2, "six": 8}.get(scheme, 4)  # six: once for the rows' scales
    moved = p.batch * p.k * packed * (read + kind.planes * kind.size)
    tile = Tile(threads=256, stages=2) if kind.planes > 1 else Tile(threads=128, stages=4)
    return seconds + moved / rates.memory_rate, tile


def _seconds(p: Size, x: TileRates, rates: TileProducts) -> float:
    """The multiprocessor with most tiles, full or waiting for memory, or the bytes."""
    rows = columns = TILE
    if x.scheme == "fma":
        tile, depth = fma_tile(Tile(items=x.items, lanes=x.lanes)), 8
        rows, columns = tile.rows, tile.columns
    else:
        depth = SLICE // kind_of(x.scheme).size
    tiles = p.batch * -(-p.m // rows) * -(-p.n // columns)
    count = -(-tiles // rates.units)
    multiply = -(-p.k // depth) * max(count * x.busy, x.alone)
    moved = p.nbytes * (0.5 if x.scheme == "native" else 1.0) / rates.memory_rate
    return rates.launch + max(multiply, moved) + count * x.epilogue


def library_seconds(
    p: Size, dtype: DType, readers: int, stores: int, rates: TileProducts
) -> float:
    """The library's product, and `readers` kernels behind it that store `stores` results."""
    share = dtype.bytes / FLOAT32.bytes
    flops = rates.library_flops if dtype == FLOAT32 else rates.library_half_flops
    product = 2.0 * p.batch * p.m * p.n * p.k / flops + share * p.nbytes / rates.memory_rate
    out = dtype.bytes * p.batch * p.m * p.n
    passes = readers * rates.pass_launch + (readers + stores) * out / rates.memory_rate
    return product + rates.library_launch + passes
