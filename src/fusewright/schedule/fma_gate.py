"""Whether a float32 product by multiply-adds pays, and with which tile, from shapes alone.

It is rarely faster than the library's; what it saves is the passes over its result. The rates are
data of the target (`target.arch.FmaProducts`), fitted to measurements; nothing is timed here.
"""

from ..ir.fma import fma_tile
from ..ir.kernel import Tile
from ..target.arch import FmaProducts, FmaRates
from .gate import Size


def best_tile(p: Size, rates: FmaProducts) -> tuple[float, Tile]:
    """The modelled seconds of the product, what follows included, and its tile."""
    timed = [(_seconds(p, x, rates), x) for x in rates.tiles]
    seconds, best = min(timed, key=lambda pair: pair[0])
    return seconds, Tile(threads=128, items=best.items, lanes=best.lanes)


def _seconds(p: Size, x: FmaRates, rates: FmaProducts) -> float:
    """The multiprocessor with most tiles, full or waiting for memory, or the bytes."""
    tile = fma_tile(Tile(items=x.items, lanes=x.lanes))
    tiles = p.batch * -(-p.m // tile.rows) * -(-p.n // tile.columns)
    count = -(-tiles // rates.units)
    steps = -(-p.k // 8)
    multiply = steps * max(count * x.busy, x.alone)
    return rates.launch + max(multiply, p.nbytes / rates.memory_rate) + count * x.epilogue


def library_seconds(p: Size, readers: int, stores: int, rates: FmaProducts) -> float:
    """The library's product, and `readers` kernels behind it that store `stores` results."""
    flops, out = 2.0 * p.batch * p.m * p.n * p.k, 4.0 * p.batch * p.m * p.n
    product = flops / rates.library_flops + p.nbytes / rates.memory_rate + rates.library_launch
    return product + readers * rates.pass_launch + (readers + stores) * out / rates.memory_rate
