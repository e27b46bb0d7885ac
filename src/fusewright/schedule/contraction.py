"""Matrix products as kernels with their epilogue inside: what they take over, and when they pay.

Of a finished program: a library product, together with what `hosting` finds that the
kernels reading it can leave to it, becomes one kernel of anchor "contraction": bodies with the
product's element as a `Dot` where the result was loaded. The result is stored only if something
still reads it. Whether the skeleton or the library is faster is modelled in `gate`; `skeletons`
chooses.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

from fusewright.ir import body as b
from fusewright.ir import fma, mma, native, offsets
from fusewright.ir import index as ix
from fusewright.ir.conv_product import ConvShape, result_axes
from fusewright.ir.conv_product import element as conv_element
from fusewright.ir.conv_tile import alternating, conv_workspace
from fusewright.ir.dtypes import BFLOAT16, FLOAT16, FLOAT32, UINT8, DType
from fusewright.ir.index import Index, Var
from fusewright.ir.kernel import (
    Buffer,
    Kernel,
    LibraryCall,
    Program,
    Scheme,
    Step,
    Store,
    Strided,
    Tile,
    WhyNot,
)
from fusewright.ir.onepass import partials_of
from fusewright.ir.scalar import OPS
from fusewright.options import Options
from fusewright.target.arch import Arch
from fusewright.target.products import NativeProducts, Products

from . import gate
from .convolutions import best_tile as best_tile_of
from .gate import CHUNK, TILE_PLANES, TILE_STREAMED, Size, Times, passes_seconds, times
from .hosting import Element, Hosted, host, variables
from .library import CONV_PRODUCT, EXACT_CONV_PRODUCT
from .prologue import Prologue, find, pass_seconds, planes_seconds

FOLD_ROWS = 16  # rows that share a partial result: emit/skeletons/gemm_sm90_config.cuh


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


def storable_phases(conv: ConvShape) -> tuple[int, ...]:
    """The phases of a convolution whose results the hole can store where they are among others:
    scattered stores take longer than a pass of their own."""
    return conv.phases if alternating(conv) > 1 else ()


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
    batch, m, n, k = _axes(p)
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


# ------------------------------------------------------------------------------- the new kernel


def replaced(program: Program, p: Product, hosted: Hosted) -> Program:
    """The program with the product and what its readers leave to it as one step."""
    element = element_of(p)
    needless = tuple(x.kernel.name for x in p.computed if x is not None)
    unread = tuple(w for x in p.computed if x is not None for w in x.kernel.writes)
    steps = [s for s in _with_rest(program.steps, hosted) if s.name not in needless]
    if _still_read(replace(program, steps=tuple(steps)), p):
        store = Store(p.out, element.offset, element.value)
        hosted = replace(hosted, stores=(store, *hosted.stores))
    gone = (*unread, *(() if p.out in hosted.written else (p.out,)))
    kernel = _kernel(program, p, hosted, element, _tile(p))
    size = _workspace(p, kernel)
    space = Buffer(f"{kernel.name}_space", (size,), UINT8, (1,), "temp")
    kernel = replace(kernel, workspace=space.name)
    buffers = tuple(x for x in program.buffers if x.name not in gone)
    return replace(
        program,
        steps=_placed(steps, p.call, kernel),
        buffers=(*buffers, *hosted.statistics, space),
    )


def hosted_by(program: Program, p: Product, element: Element, arch: Arch) -> Hosted:
    """What the readers of the product leave to it, first come first served."""
    buffers = {x.name: x for x in program.buffers}
    start = program.steps.index(p.call) + 1
    state, blocked = Hosted(), frozenset((p.out,))
    for step in program.steps[start:]:
        if not blocked.intersection(step.reads):
            continue
        if isinstance(step, Kernel) and p.out in step.reads:
            served = host(state, step, element, blocked, buffers, arch)
            if served is not None and not (p.conv is not None and _folds_at_length(served)):
                state = served
        blocked |= frozenset(step.writes)
    return state if _can_wait(program.steps[start:], state, blocked) else Hosted()


def _folds_at_length(hosted: Hosted) -> bool:
    """Whether elements are merged by many operations each: beside the short sums of a convolution
    that takes longer than to read its result again."""
    found = partials_of(hosted.folding) or ()
    return any(x.form in ("squares", "exponentials") for x in found)


def _can_wait(steps: Sequence[Step], hosted: Hosted, blocked: frozenset[str]) -> bool:
    """Whether no foreign call need change places with another: random ones must not."""
    last = max((k for k, s in enumerate(steps) if s.name in hosted.rest), default=0)
    foreign = [s for s in steps[:last] if isinstance(s, LibraryCall) and s.extern]
    later = [bool(blocked.intersection(s.reads)) for s in foreign]
    return later == sorted(later)


def _with_rest(steps: Sequence[Step], hosted: Hosted) -> list[Step]:
    """The steps with what remains of the kernels that the product serves."""
    remaining = (hosted.rest.get(s.name, s) for s in steps)
    return [s for s in remaining if s is not None]


def _still_read(program: Program, p: Product) -> bool:
    return p.out in program.kept or any(p.out in s.reads for s in program.steps)


def _placed(steps: list[Step], call: LibraryCall, kernel: Kernel) -> tuple[Step, ...]:
    """The steps with the kernel in place of the call, or behind the last one it reads from; what
    waits for the kernel comes after it."""
    at = steps.index(call)
    before, after = steps[:at], steps[at + 1 :]
    needs = [k for k, s in enumerate(after) if set(s.writes).intersection(kernel.reads)]
    end = needs[-1] + 1 if needs else 0
    ready: list[Step] = []
    waiting: list[Step] = []
    blocked = set(kernel.writes)
    for s in after[:end]:
        waits = bool(blocked.intersection(s.reads))
        (waiting if waits else ready).append(s)
        blocked.update(s.writes if waits else ())
    return (*before, *ready, kernel, *waiting, *after[end:])


def element_of(p: Product) -> Element:
    """The product's element at (b, m, n), bias included."""
    batch, m, n, k = _axes(p)
    if p.conv is not None:
        value = conv_element(p.conv, p.right.buffer, p.left.buffer, FLOAT16)
        return Element(value, p.out, batch, m, n, result_axes(p.conv), storable_phases(p.conv))

    def load(x: Strided, row: Index, column: Index, computed: Prologue | None) -> b.Expr:
        if computed is not None:
            return computed.value
        index = (batch, row, column)[-len(x.shape) :]
        return b.Load(p.dtype, x.buffer, offsets.flatten(index, x.strides) + x.offset)

    left, right = p.computed
    value: b.Expr = b.Dot(p.dtype, k, load(p.left, m, k, left), load(p.right, k, n, right))
    if p.bias is not None:
        offset = offsets.flatten((n,), p.bias.strides[-1:]) + p.bias.offset
        terms = (value, b.Load(p.dtype, p.bias.buffer, offset))
        value = _rounded(b.Apply(FLOAT32, "add", tuple(map(_wide, terms))), p.dtype)
    return Element(value, p.out, batch, m, n)


def _axes(p: Product) -> tuple[Index, Index, Index, Var]:
    return b.product_axes(p.batch, p.m, p.n, p.k)


def _wide(e: b.Expr) -> b.Expr:
    return e if e.dtype == FLOAT32 else b.Convert(FLOAT32, e)


def _rounded(e: b.Expr, dtype: DType) -> b.Expr:
    return e if e.dtype == dtype else b.Convert(dtype, e)


def _tile(p: Product) -> Tile:
    if p.tile is not None:
        return p.tile
    split = p.scheme == "split"
    return Tile(threads=384, stages=4, lanes=p.slices) if split else Tile(threads=384, stages=3)


def _workspace(p: Product, kernel: Kernel) -> int:
    if p.scheme == "split":
        return workspace_bytes(p, kernel)
    if p.scheme == "fma":
        return fma.workspace_bytes(kernel)
    if p.conv is not None:
        return conv_workspace(kernel)
    return (native if p.tile is None else mma).workspace_bytes(kernel)


def _kernel(program: Program, p: Product, hosted: Hosted, element: Element, tile: Tile) -> Kernel:
    """The product with its stores and folds."""
    before = [x.kernel for x in p.computed if x is not None]
    served = [s for s in program.steps if isinstance(s, Kernel) and s.name in hosted.rest]
    whole = [s.name for s in served if hosted.rest[s.name] is None]
    phases = hosted.phases(element)
    own = p.call.name.removesuffix("_call") + "_kernel"
    return Kernel(
        whole[0] if whole and p.out not in hosted.written else own,
        "contraction",
        variables(*element.kept(hosted.over)),
        phases,
        tuple(dict.fromkeys(e.buffer for f in phases for e in b.loads(*f.bodies))),
        tuple(dict.fromkeys(s.buffer for f in phases for s in f.stores)),
        tile,
        (*_covers(before), *p.call.covers, *_covers(served)),
        tuple(dict.fromkeys(o for s in (*before, p.call, *served) for o in s.origins)),
        scheme=p.scheme,
        conv=p.conv,
    )


def _covers(kernels: Sequence[Kernel]) -> tuple[str, ...]:
    return tuple(c for k in kernels for c in k.covers)


def workspace_bytes(p: Product, kernel: Kernel) -> int:
    """Bytes the skeleton needs: `plan_of` of emit/skeletons/gemm_sm90_launch.cuh."""
    stream, planes = (p.right, p.left) if p.streams_right else (p.left, p.right)
    rows, columns = (p.n, p.m) if p.streams_right else (p.m, p.n)

    def batches(x: Strided) -> int:
        return p.batch if len(x.shape) == 3 and x.strides[0] else 1

    padded_columns, padded_depth = native.up(columns, TILE_PLANES), native.up(p.k, CHUNK)
    words = sum(x.words for x in partials_of(kernel.phases) or ())
    over_n = ix.var("n", p.n) in kernel.phases[0].cols
    partial = 0
    if words:
        folds_rows = over_n == p.streams_right
        slabs = -(-rows // FOLD_ROWS) if folds_rows else padded_columns // TILE_PLANES
        partial = p.batch * slabs * words * (columns if folds_rows else rows) * 4
    copy = 0
    if not is_addressable(stream):
        inner, outer = (p.k, rows) if _k_stride(p, stream) == 1 else (rows, p.k)
        copy = batches(stream) * native.up(inner, 4) * outer * 4
    tiles = p.batch * -(-rows // TILE_STREAMED) * (padded_columns // TILE_PLANES)
    slices = kernel.tile.lanes
    sizes = (
        batches(stream) * rows * 4,
        batches(planes) * padded_columns * 8,
        batches(planes) * 3 * columns * padded_depth * 2,
        partial,
        copy,
        tiles * slices * TILE_STREAMED * TILE_PLANES * 4 if slices > 1 else 0,
    )
    total = 256
    for size in sizes:
        total = native.up(total + size, 256)
    return total


def _k_stride(p: Product, x: Strided) -> int:
    return x.strides[-1] if x is p.left else x.strides[-2]


def is_addressable(x: Strided) -> bool:
    """Whether tensor maps can address an operand as it is: 16-byte rows and start."""
    row, column = x.strides[-2:]
    pitch = row if column == 1 else column
    batch = x.strides[0] if len(x.shape) == 3 else 0
    return x.offset % 4 == 0 and pitch % 4 == 0 and batch % 4 == 0
