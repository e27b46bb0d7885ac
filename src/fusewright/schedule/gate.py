"""Whether the split product or the library is faster, from shapes alone.

The rates are data of the target (`target.arch.Products`), fitted to measurements; nothing is timed
here.
"""

from dataclasses import dataclass
from math import prod

from ..ir import graph as g
from ..ir.dtypes import FLOAT32
from ..ir.matmul import roles
from ..target.arch import Arch, Products

# emit/skeletons/gemm_sm90_config.cuh: rows of a cluster, columns, depth of a chunk.
TILE_STREAMED, TILE_PLANES, CHUNK = 256, 128, 64


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


@dataclass(frozen=True, slots=True)
class Times:
    """Modelled seconds of one product by the skeleton and by the library."""

    skeleton: float
    library: float
    margin: float

    @property
    def pays(self) -> bool:
        return self.skeleton < self.margin * self.library

    @property
    def text(self) -> str:
        return (
            f"the library's product takes about {self.library * 1e6:.0f} us, "
            f"the split product {self.skeleton * 1e6:.0f} us"
        )


def times(p: Size, rates: Products) -> Times:
    """Both times: whole waves of tiles and the split of the smaller operand, against a roofline."""
    tiles = p.batch * -(-p.streamed // TILE_STREAMED) * -(-p.planes // TILE_PLANES)
    chunk = max(rates.chunk, TILE_STREAMED / 2 * CHUNK * 4 * 2 * rates.clusters / rates.stream_rate)
    waves = -(-tiles // rates.clusters)
    split = p.batch * (8.0 * p.planes * p.k + 512.0 * p.streamed) / rates.split_rate
    skeleton = rates.launches + split + waves * (-(-p.k // CHUNK) * chunk + rates.epilogue)
    flops = 2.0 * p.batch * p.m * p.n * p.k
    library = max(flops / rates.library_flops, p.nbytes / rates.library_bytes)
    return Times(skeleton, library, rates.margin)


def reads_product(x: g.Node, arch: Arch) -> bool:
    """Whether `x` is pointwise work on a product of its size that the skeleton would compute."""
    stack, seen = [x], set()
    while stack:
        node = stack.pop()
        if node in seen or node.size != x.size:
            continue
        seen.add(node)
        if isinstance(node, g.Contract):
            return _is_taken(node, arch)
        if isinstance(node, g.Unary | g.Binary | g.Where | g.Cast | g.View):
            stack.extend(node.operands)
    return False


def _is_taken(c: g.Contract, arch: Arch) -> bool:
    """The gate on the graph: its extents are those of a matrix product with these operands."""
    k = prod(c.reduced)
    if arch.products is None or c.dtype != FLOAT32 or c.a_valid or c.b_valid or not k:
        return False
    found = roles(c)
    if found is None:  # a convolution, say: the library's
        return False
    batch, m, n = (prod(v.hi + 1 for v in vs) for vs in (found.batch, found.m, found.n))
    return times(Size(batch, m, n, k), arch.products).pays
