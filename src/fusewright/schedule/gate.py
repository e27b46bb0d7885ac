"""The modelled seconds of a product, by each kind of kernel and by the library, from shapes alone.

The rates are data of the target (`target.products`), fitted to measurements; nothing is timed here.
Which kernel is taken is decided in `contraction` and `skeletons`.
"""

from dataclasses import dataclass
from math import ceil, prod

from fusewright.ir import graph as g
from fusewright.ir.conv_product import conv_of
from fusewright.ir.dtypes import FLOAT32, DType
from fusewright.ir.fma import fma_tile
from fusewright.ir.kernel import Scheme, Tile
from fusewright.ir.matmul import roles
from fusewright.ir.mma import SLICE, kind_of
from fusewright.ir.mma import TILE as MMA_TILE
from fusewright.ir.native import CLUSTER_ROWS, WIDE, tile_columns
from fusewright.target.arch import Arch
from fusewright.target.cost import is_pointwise
from fusewright.target.products import NativeProducts, Products, TileProducts, TileRates

# emit/skeletons/gemm_sm90_config.cuh: rows of a cluster, columns, depth of a chunk; column tiles
# that share what is streamed; chunks up to which sums are promoted twice a chunk.
TILE_STREAMED, TILE_PLANES, CHUNK = 256, 128, 64
RASTER, SHORT_CHUNKS = 8, 16
# emit/skeletons/gemm_sm90_short.cuh: the chunks of a small depth, rows and columns of its tiles.
SMALL_CHUNKS, PANEL_STREAMED, PANEL_PLANES = 2, 192, 64
# Slices of K at most: their sum is one kernel, which reads them one after the other.
MOST_SLICES = 66


@dataclass(frozen=True, slots=True)
class Size:
    """`batch` products of (m, k) with (k, n); the operand of more rows is streamed."""

    batch: int
    m: int
    n: int
    k: int

    @property
    def streamed(self) -> int:
        return max(self.m, self.n)

    @property
    def planes(self) -> int:
        return min(self.m, self.n)

    @property
    def nbytes(self) -> float:
        return 4.0 * self.batch * (self.m * self.k + self.k * self.n + self.m * self.n)


def passes_seconds(
    p: Size, dtype: DType, kernels: int, stores: int, rates: NativeProducts | TileProducts
) -> float:
    """What `kernels` that read the product's result from memory, and store `stores` of its size,
    take behind it."""
    out = dtype.bytes * p.batch * p.m * p.n
    return kernels * rates.pass_launch + (kernels + stores) * out / rates.memory_rate


# --------------------------------------------------- float32 from products of 16-bit terms, Hopper


@dataclass(frozen=True, slots=True)
class Times:
    """Modelled seconds of one product by the skeleton and by the library."""

    skeleton: float
    library: float
    margin: float
    slices: int = 1
    follows: bool = False  # the library's time includes passes that the skeleton makes needless

    @property
    def pays(self) -> bool:
        return self.skeleton < self.margin * self.library

    @property
    def text(self) -> str:
        takes = "and what follows take" if self.follows else "takes"
        return (
            f"the library's product {takes} about {self.library * 1e6:.0f} us, "
            f"the split product {self.skeleton * 1e6:.0f} us"
        )


def times(p: Size, rates: Products, operations: float = 0.0, folds: bool = False) -> Times:
    """Both times, the skeleton's with the slices of K that are best for it.

    `operations` per element of the streamed operand run in front of its split; `folds`: results
    are folded along a row or column.
    """
    chunks = -(-p.k // CHUNK)
    most = min(chunks, MOST_SLICES)
    even = dict.fromkeys(-(-chunks // -(-chunks // s)) for s in range(1, most + 1))
    skeleton, slices = min((split_seconds(p, s, rates, operations, folds), s) for s in even)
    return Times(skeleton, library_seconds(p, rates), rates.margin, slices)


def library_seconds(p: Size, rates: Products) -> float:
    """The library's product: a roofline; its tiles have at least so many columns, and a tile's
    results are stored when its products are over."""
    flops = 2.0 * p.batch * p.streamed * max(p.planes, rates.library_columns) * p.k
    stored = 4.0 * p.batch * p.m * p.n / rates.library_bytes
    return max(flops / rates.library_flops + stored, p.nbytes / rates.library_bytes)


def split_seconds(
    p: Size, slices: int, rates: Products, operations: float, folds: bool
) -> float:
    """Whole waves of tiles, each a slice of K, behind the split of the smaller operand, and the
    sum of the slices. A small depth has its own tiles."""
    split = p.batch * (8.0 * p.planes * p.k + 512.0 * p.streamed) / rates.split_rate
    if p.k <= SMALL_CHUNKS * CHUNK and slices == 1 and not folds:
        panels = p.batch * ceil(p.streamed / PANEL_STREAMED)
        waves = ceil(panels * ceil(p.planes / PANEL_PLANES) / (2 * rates.clusters))
        before = ceil(panels / (2 * rates.clusters)) * operations * rates.operation
        return rates.launches + split + before + waves * rates.small
    columns = -(-p.planes // TILE_PLANES)
    tiles = slices * p.batch * -(-p.streamed // TILE_STREAMED) * columns
    chunks = ceil(ceil(p.k / CHUNK) / slices)
    active, share = min(tiles, rates.clusters), min(columns, RASTER)
    read = TILE_STREAMED * CHUNK * 4.0 * active / share / rates.stream_rate
    short = rates.short if chunks <= SHORT_CHUNKS else 1.0
    chunk = max(short * rates.chunk + operations * rates.operation, read)
    waves = -(-tiles // rates.clusters)
    moved = 2.0 * tiles * TILE_STREAMED * TILE_PLANES * 4 if slices > 1 else 0.0
    added = 2 * rates.finish + moved / rates.split_rate if slices > 1 else 0.0
    return rates.launches + split + waves * (chunks * chunk + rates.epilogue) + added


def product_below(x: g.Node, arch: Arch) -> g.Contract | None:
    """The product of its size that `x` is pointwise work on, if the skeleton would compute it."""
    stack, seen = [x], set()
    while stack:
        node = stack.pop()
        if node in seen or node.size != x.size:
            continue
        seen.add(node)
        if isinstance(node, g.Contract):
            return node if _is_taken(node, arch) else None
        if is_pointwise(node) or isinstance(node, g.View):
            stack.extend(node.operands)
    return None


def _is_taken(c: g.Contract, arch: Arch) -> bool:
    """The gate on the graph: its extents are those of a matrix product with these operands."""
    if arch.convs is not None and conv_of(c) is not None:
        return True
    k = prod(c.reduced)
    if arch.products is None or c.dtype != FLOAT32 or not k:
        return False
    found = roles(c)
    if found is None:  # a convolution, say: the library's
        return False
    batch, m, n = (prod(v.hi + 1 for v in vs) for vs in (found.batch, found.m, found.n))
    return times(Size(batch, m, n, k), arch.products).pays


# ------------------------------------------------------- in the tensor core's own types, on Hopper


def native_seconds(
    p: Size, scheme: Scheme, folds: bool, packed: int, rates: NativeProducts
) -> float:
    """Waves of tiles, each as long as its products or its epilogue, behind the conversion of
    operands of `packed` rows in all."""
    columns = tile_columns(p.batch, p.m, p.n)
    share = 1.0 if columns == WIDE else 0.6
    tiles = p.batch * -(-p.m // CLUSTER_ROWS) * -(-p.n // columns)
    chunks = -(-p.k // (32 if scheme == "tf32" else 64))
    wave = share * max(chunks * rates.chunk, rates.epilogue)
    seconds = rates.launches + -(-tiles // rates.clusters) * wave + folds * rates.fold
    moved = {"native": 4, "bf16": 6, "tf32": 8}[scheme] * p.batch * p.k * packed
    return seconds + moved / rates.pack_rate


def native_library_seconds(p: Size, rates: NativeProducts) -> float:
    """The library's 16-bit product."""
    flops, out = 2.0 * p.batch * p.m * p.n * p.k, 2.0 * p.batch * p.m * p.n
    moved = 2.0 * p.batch * p.k * (p.m + p.n) + out
    return max(flops / rates.library_flops, moved / rates.library_bytes) + rates.library_launch


# ------------------------------------------------ by mma.sync and by multiply-adds, on any device


def best_tile(p: Size, scheme: Scheme, packed: int, rates: TileProducts) -> tuple[float, Tile]:
    """The modelled seconds of the product, what follows included, and its tile; operands of
    `packed` rows in all are copied first."""
    timed = [(_tile_seconds(p, x, rates), x) for x in rates.tiles if x.scheme == scheme]
    seconds, best = min(timed, key=lambda pair: pair[0])
    if scheme == "fma":
        return seconds, Tile(threads=128, items=best.items, lanes=best.lanes)
    kind = kind_of(scheme)
    read = {"native": 2, "six": 8}.get(scheme, 4)  # six: once for the rows' scales
    moved = p.batch * p.k * packed * (read + kind.planes * kind.size)
    tile = Tile(threads=256, stages=2) if kind.planes > 1 else Tile(threads=128, stages=4)
    return seconds + moved / rates.memory_rate, tile


def _tile_seconds(p: Size, x: TileRates, rates: TileProducts) -> float:
    """The multiprocessor with most tiles, full or waiting for memory, or the bytes."""
    rows = columns = MMA_TILE
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


def tiled_library_seconds(p: Size, dtype: DType, rates: TileProducts) -> float:
    """The library's product: its arithmetic, then its bytes."""
    share = dtype.bytes / FLOAT32.bytes
    flops = rates.library_flops if dtype == FLOAT32 else rates.library_half_flops
    product = 2.0 * p.batch * p.m * p.n * p.k / flops + share * p.nbytes / rates.memory_rate
    return product + rates.library_launch
