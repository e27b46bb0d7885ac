"""The kernel of a product that is claimed: one step in place of the call and of its readers' work.

What the readers leave to the product (`hosting`) becomes stores and folds over its element, a `Dot`
where the result was loaded; the result is stored only if something still reads it. Which products
are claimed, and by which scheme, is said in `contraction` and `skeletons`.
"""

from collections.abc import Sequence
from dataclasses import replace

from fusewright.ir import body as b
from fusewright.ir import fma, mma, native, offsets
from fusewright.ir import index as ix
from fusewright.ir.conv_product import ConvShape, result_axes
from fusewright.ir.conv_product import element as conv_element
from fusewright.ir.conv_tile import alternating, conv_workspace
from fusewright.ir.dtypes import FLOAT16, FLOAT32, UINT8, DType
from fusewright.ir.index import Index
from fusewright.ir.kernel import Buffer, Kernel, LibraryCall, Program, Step, Store, Strided, Tile
from fusewright.ir.onepass import partials_of
from fusewright.target.arch import Arch

from .contraction import Product, axes_of
from .gate import CHUNK, TILE_PLANES, TILE_STREAMED
from .hosting import Element, Hosted, host, variables
from .prologue import Prologue

FOLD_ROWS = 16  # rows that share a partial result: emit/skeletons/gemm_sm90_config.cuh


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


def _storable_phases(conv: ConvShape) -> tuple[int, ...]:
    """The phases of a convolution whose results the hole can store where they are among others:
    scattered stores take longer than a pass of their own."""
    return conv.phases if alternating(conv) > 1 else ()


def element_of(p: Product) -> Element:
    """The product's element at (b, m, n), bias included."""
    batch, m, n, k = axes_of(p)
    if p.conv is not None:
        value = conv_element(p.conv, p.right.buffer, p.left.buffer, FLOAT16)
        return Element(value, p.out, batch, m, n, result_axes(p.conv), _storable_phases(p.conv))

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
