"""Matrix products that may become kernels: by which scheme, with which prologue, when they pay.

Of a finished program: a library product, together with what `hosting` finds that the kernels
reading it can leave to it, becomes one kernel of anchor "contraction" (`product_kernel`). Whether
the skeleton or the library is faster is modelled in `gate`; `skeletons` chooses.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

from fusewright.ir import body as b
from fusewright.ir import native
from fusewright.ir.conv_product import ConvShape
from fusewright.ir.dtypes import BFLOAT16, FLOAT16, FLOAT32, DType
from fusewright.ir.index import Index, Var
from fusewright.ir.kernel import (
    LibraryCall,
    Program,
    Scheme,
    Strided,
    Tile,
    WhyNot,
)
from fusewright.ir.scalar import OPS
from fusewright.options import Options
from fusewright.target.arch import Arch
from fusewright.target.products import NativeProducts, Products

from . import gate
from .convolutions import best_tile as best_tile_of
from .gate import Size, Times, passes_seconds, times
from .hosting import Hosted
from .library import CONV_PRODUCT, EXACT_CONV_PRODUCT
from .prologue import Prologue, find, pass_seconds, planes_seconds


@dataclass(frozen=True, slots=True)
class Product:
    """A library product as `left[b, m, k] * right[b, k, n]`, with an optional bias per column."""

    call: LibraryCall
    left: Strided
    right: Strided
    bias: Strided | None
    batch: int
    m: int
    n: int
    k: int
    dtype: DType
    scheme: Scheme
    slices: int = 1
    tile: Tile | None = None  # of scheme fma and of convolutions
    computed: tuple[Prologue | None, Prologue | None] = (None, None)  # instead of left, right
    saved: float = 0.0  # seconds of what computes them otherwise
    conv: ConvShape | None = None

    @property
    def size(self) -> Size:
        return Size(self.batch, self.m, self.n, self.k)

    @property
    def out(self) -> str:
        return self.call.outs[0]

    @property
    def streams_right(self) -> bool:
        """The larger operand is streamed: read once, split in registers."""
        return self.n >= self.m


def axes_of(p: Product) -> tuple[Index, Index, Index, Var]:
    """The variables of batch, row, column and what is summed over."""
    return b.product_axes(p.batch, p.m, p.n, p.k)


def products_of(
    call: LibraryCall, program: Program, arch: Arch, options: Options
) -> Iterator[Product]:
    """The product a call computes by each scheme that may compute it, the best first."""
    if call.function in (CONV_PRODUCT, EXACT_CONV_PRODUCT):
        yield _conv_product(call, program)
    if call.function not in ("torch.mm", "torch.addmm", "torch.bmm"):
        return
    dtype = program.buffer(call.outs[0]).dtype
    *before, left, right = call.args
    bias = before[0] if before else None
    assert isinstance(left, Strided) and isinstance(right, Strided)
    batch = left.shape[0] if len(left.shape) == 3 else 1
    (m, k), n = left.shape[-2:], right.shape[-1]
    if not min(batch, m, n, k):
        return
    bias = bias if isinstance(bias, Strided) else None
    for scheme in _schemes(dtype, arch, options):
        product = Product(call, left, right, bias, batch, m, n, k, dtype, scheme)
        if arch.products is not None and arch.native is not None and scheme != "fma":
            product = _with_faster_scheme(product, arch.products, arch.native)
        yield product


def _conv_product(call: LibraryCall, program: Program) -> Product:
    """A convolution: the weights' rows by the outputs of each image."""
    images, weights, *steps = call.args
    assert isinstance(images, Strided) and isinstance(weights, Strided)
    x, out = images.shape, program.buffer(call.outs[0])
    rows = prod(out.shape[1 : -len(x) + 2])
    conv = ConvShape(x[0], rows, x[-1], x[1:-1], *steps)  # type: ignore[arg-type]
    return Product(
        call,
        weights,
        images,
        None,
        conv.images,
        conv.rows,
        conv.pixels,
        conv.depth,
        out.dtype,
        "conv" if call.function == CONV_PRODUCT else "conv_split",
        conv=conv,
    )


def with_conv_tile(p: Product, hosted: Hosted, arch: Arch) -> Product:
    """The convolution with the tile that is best with what its kernel computes for others."""
    assert p.conv is not None
    bodies = (*(s.body for s in hosted.stores), *(e for f in hosted.folding for e in f.bodies))
    applied = (e for e in b.walk(*bodies) if isinstance(e, b.Apply))
    operations = sum(OPS[e.op].cost for e in applied)
    return replace(p, tile=best_tile_of(p.conv, arch, operations)[1])


def _schemes(dtype: DType, arch: Arch, options: Options) -> tuple[Scheme, ...]:
    """Those that may compute a product of `dtype` on the target, the best first."""
    wanted: list[Scheme] = [_rounded_scheme(dtype, options)]
    if dtype == FLOAT32 and options.precision != "ieee":
        wanted.append("six" if arch.products is None else "split")
    wanted = [x for x in wanted if x]
    if arch.products is not None:  # what may be rounded is split where that is faster
        wanted = wanted[:1]
    if dtype == FLOAT32:
        wanted.append("fma")
    own = [x.scheme for x in arch.tiles.tiles] if arch.tiles is not None else []
    hoppers = ("split", "native", "bf16", "tf32") if arch.products is not None else ()
    return tuple(x for x in wanted if x in own or x in hoppers)


def _rounded_scheme(dtype: DType, options: Options) -> Scheme:
    """The native scheme that a product of `dtype` operands may use; "" if none."""
    if dtype in (BFLOAT16, FLOAT16):
        return "native"
    allowed: dict[str, Scheme] = {"tf32": "tf32", "bf16": "bf16"}
    return allowed.get(options.precision, "") if dtype == FLOAT32 else ""


def _with_faster_scheme(p: Product, rates: Products, own: NativeProducts) -> Product:
    """A product that may be rounded as the split one where that is faster: with few rows."""
    size = p.size
    split = times(size, rates).skeleton
    may = p.dtype == FLOAT32 and p.scheme != "split"
    slower = may and gate.native_seconds(size, p.scheme, False, p.m + p.n, own) > split
    return replace(p, scheme="split") if slower else p


def with_prologues(
    p: Product, program: Program, arch: Arch
) -> tuple[Product, tuple[WhyNot, ...]]:
    """The product with the pointwise producers of its operands inside, where that is faster."""
    if p.scheme != "split" or arch.products is None:
        return p, ()
    batch, m, n, k = axes_of(p)
    found = find(program, p.call, p.left, (batch, m, k)), find(
        program, p.call, p.right, (batch, k, n)
    )
    why_not: list[WhyNot] = []
    for side, prologue in enumerate(found):
        if prologue is None:
            continue
        apart = pass_seconds(prologue, program, arch)
        inside = _added_seconds(p, prologue, side, arch)
        what, pays = prologue.kernel.covers[0], inside is not None and inside < apart
        if inside is None:
            reason = "it needs more than one value of each element's own as the product streams it"
        else:
            reason = f"it takes about {apart * 1e6:.0f} us, in the product {inside * 1e6:.0f} us"
        at = "a pass of its own for" if pays else "in the product that reads it:"
        why_not.append(WhyNot(f"{at} {what}", reason))
        if pays:
            computed = (prologue, p.computed[1]) if side == 0 else (p.computed[0], prologue)
            memory = {"left" if side == 0 else "right": prologue.memory}
            p = replace(p, computed=computed, saved=p.saved + apart, **memory)
    return p, tuple(why_not)


def _added_seconds(p: Product, prologue: Prologue, side: int, arch: Arch) -> float | None:
    """What a prologue adds to the product; None if it cannot run where its operand is read."""
    assert arch.products is not None
    if p.streams_right != (side == 1):
        return planes_seconds(prologue, arch)
    if not prologue.can_stream:
        return None
    with_it = times(p.size, arch.products, prologue.operations).skeleton
    return with_it - times(p.size, arch.products).skeleton


def _packed_rows(p: Product, taken: tuple[str, ...]) -> int:
    """Rows of the operands that the skeleton must copy: all but 16-bit ones of layouts `taken`."""
    rows = 0
    for x, count, swap in ((p.left, p.m, False), (p.right, p.n, True)):
        row, k = x.strides[-2:][:: -1 if swap else 1]
        batch = x.strides[0] if len(x.shape) == 3 else 0
        layout = native.layout_of((row, k, batch), x.offset, count)
        rows += 0 if p.scheme == "native" and layout in taken else count
    return rows


def refusal(p: Product, hosted: Hosted, arch: Arch) -> str | None:
    """Why the library keeps the product, or None: unit strides and modelled time decide. Of
    convolutions that was decided on the graph."""
    if p.conv is not None:
        return None
    if is_tiled(p, arch):
        return _tile_refusal(p, hosted, arch)
    assert arch.products is not None and arch.native is not None
    size, own = p.size, arch.native
    if p.scheme == "split":
        if is_discontiguous(p):
            return "neither axis of an operand is contiguous"
        both = times_of(p, hosted, arch)
        return None if both.pays else both.text
    if p.scheme == "native":
        if not hosted.rest:
            return _NOTHING_FOLLOWS
        behind = passes_seconds(size, p.dtype, len(hosted.rest), _stores(p, hosted), own)
        library = gate.native_library_seconds(size, own) + behind
    else:
        library = times(size, arch.products).library
    ours = gate.native_seconds(size, p.scheme, bool(hosted.folding), _packed_rows(p, _DIRECT), own)
    return _slower(ours, library)


def is_discontiguous(p: Product) -> bool:
    """Whether bulk copies cannot read an operand."""
    sides = zip((p.left, p.right), p.computed, strict=True)
    return any(1 not in x.strides[-2:] and prologue is None for x, prologue in sides)


def _tile_refusal(p: Product, hosted: Hosted, arch: Arch) -> str | None:
    assert arch.tiles is not None
    if not hosted.rest and p.scheme in ("fma", "native"):
        return _NOTHING_FOLLOWS
    behind = passes_seconds(p.size, p.dtype, len(hosted.rest), _stores(p, hosted), arch.tiles)
    library = gate.tiled_library_seconds(p.size, p.dtype, arch.tiles) + behind
    return _slower(best_tile(p, arch)[0], library)


def _stores(p: Product, hosted: Hosted) -> int:
    """Results of the product's size that are stored beside its own."""
    return sum(s.buffer != p.out for s in hosted.stores)


def is_tiled(p: Product, arch: Arch) -> bool:
    """Whether its skeleton has a tile to choose: those that are not Hopper's own."""
    return p.scheme == "fma" or arch.products is None


def best_tile(p: Product, arch: Arch) -> tuple[float, Tile]:
    """The modelled seconds of such a product, and its tile."""
    assert arch.tiles is not None
    packed = 0 if p.scheme == "fma" else _packed_rows(p, ("kAlongK",))
    return gate.best_tile(p.size, p.scheme, packed, arch.tiles)


_DIRECT = ("kAlongK", "kAcross")  # what Hopper's products take as it is
_NOTHING_FOLLOWS = "nothing that follows can be computed with it, and the library's is as fast"


def _slower(ours: float, library: float) -> str | None:
    if ours < library:
        return None
    return (
        f"the library's product and what follows take about {library * 1e6:.0f} us, "
        f"the product with all that in it {ours * 1e6:.0f} us"
    )


def times_of(p: Product, hosted: Hosted, arch: Arch) -> Times:
    """Both times, the library's with the passes before and behind it that the skeleton saves."""
    assert arch.products is not None and arch.native is not None
    streamed = p.computed[1 if p.streams_right else 0]
    operations = streamed.operations if streamed else 0.0
    found = times(p.size, arch.products, operations, bool(hosted.folding))
    whole = sum(rest is None for rest in hosted.rest.values())
    stores = _stores(p, hosted) if whole else 0
    behind = passes_seconds(p.size, p.dtype, whole, stores, arch.native)
    return replace(found, library=found.library + p.saved + behind, follows=whole > 0)
