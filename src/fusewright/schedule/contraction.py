"""Which matrix products run on the tensor cores with their epilogue inside, and why not the others.

A pass over a finished program: a library product whose result one kernel reads becomes, together
with that kernel, one kernel of anchor "contraction": the same bodies, with the product's element as
a `Dot` where the result was loaded. The result itself is then never stored. Whether the skeleton or
the library is faster is decided from shapes alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..ir import body as b
from ..ir import index as ix
from ..ir.dtypes import FLOAT32, UINT8
from ..ir.index import Index, Var
from ..ir.kernel import (
    Buffer,
    Fold,
    Kernel,
    LibraryCall,
    Phase,
    Program,
    Step,
    Store,
    Strided,
    Tile,
    WhyNot,
)
from ..options import Options
from ..target.arch import Arch

# emit/skeletons/gemm_sm90.cuh: its tile, its chunk along k, the rows that share a partial result.
TILE_STREAMED, TILE_PLANES, CHUNK, FOLD_ROWS = 256, 128, 64, 16
CLUSTERS = 66
# Float32 products per second of one cluster of two multiprocessors, and of the library on the whole
# device; seconds of the launches around the product. Measured on an H100 (benchmarks/results).
CLUSTER_RATE, LIBRARY_RATE, LAUNCHES = 3.2e12, 51e12, 12e-6
# The skeleton must promise at least this much before it replaces the library.
MARGIN = 1.1
FOLDS = ("sum", "prod", "max", "min")


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

    @property
    def out(self) -> str:
        return self.call.outs[0]

    @property
    def streams_right(self) -> bool:
        """The larger operand is streamed: read once, split in registers."""
        return self.n >= self.m


def use_tensor_cores(program: Program, arch: Arch, options: Options) -> Program:
    """The program with its large float32 products as contraction kernels, where that pays."""
    if arch.name != "cuda:sm_90a" or options.precision == "ieee":
        return program
    why_not: list[WhyNot] = []
    for call in [s for s in program.steps if isinstance(s, LibraryCall)]:
        product = _product(call, program)
        if product is None:
            continue
        if (reason := refusal(product)) is not None:
            why_not.append(WhyNot(f"{call.covers[0]} on the tensor cores", reason))
            continue
        program = _replaced(program, product)
    return replace(program, why_not=(*program.why_not, *why_not))


def _product(call: LibraryCall, program: Program) -> Product | None:
    """The float32 product a call computes, if it is one."""
    if call.function not in ("torch.mm", "torch.addmm", "torch.bmm"):
        return None
    if program.buffer(call.outs[0]).dtype != FLOAT32:
        return None
    *before, left, right = call.args
    bias = before[0] if before else None
    assert isinstance(left, Strided) and isinstance(right, Strided)
    batch = left.shape[0] if len(left.shape) == 3 else 1
    (m, k), n = left.shape[-2:], right.shape[-1]
    return Product(call, left, right, bias if isinstance(bias, Strided) else None, batch, m, n, k)


def refusal(p: Product) -> str | None:
    """Why the library keeps the product, or None: unit strides and modelled time decide."""
    for x in (p.left, p.right):
        if 1 not in x.strides[-2:]:
            return "neither axis of an operand is contiguous"
    flops = 2.0 * p.batch * p.m * p.n * p.k
    ours = skeleton_seconds(p)
    library = flops / LIBRARY_RATE + LAUNCHES / 4
    if ours * MARGIN > library:
        return (
            f"the library's product takes about {library * 1e6:.0f} us, "
            f"the split product {ours * 1e6:.0f} us"
        )
    return None


def skeleton_seconds(p: Product) -> float:
    """Modelled time of the split product: whole waves of tiles, the streamed bytes, launches."""
    streamed, planes = (p.n, p.m) if p.streams_right else (p.m, p.n)
    tiles = p.batch * -(-streamed // TILE_STREAMED) * -(-planes // TILE_PLANES)
    depth = -(-p.k // CHUNK) * CHUNK
    tile = 2.0 * TILE_STREAMED * TILE_PLANES * depth / CLUSTER_RATE
    waves = -(-tiles // CLUSTERS)
    moved = 4.0 * p.batch * (streamed * p.k + 4 * planes * p.k) / 3e12
    return max(waves * tile, moved) + LAUNCHES


# ------------------------------------------------------------------------------- the new kernel


def _replaced(program: Program, p: Product) -> Program:
    """The program with the product and, if one kernel alone reads it, that kernel as one step."""
    reader = _only_reader(program, p.out)
    hosted = _hosted(program, reader, p) if reader is not None else None
    kernel = hosted or _stored(program, p)
    space = Buffer(f"{kernel.name}_space", (workspace_bytes(p, kernel),), UINT8, (1,), "temp")
    kernel = replace(kernel, workspace=space.name)
    steps: list[Step] = []
    for s in program.steps:
        if s is p.call:
            steps += [] if hosted else [kernel]
        else:
            steps.append(kernel if hosted and s is reader else s)
    gone = p.out if hosted else None
    buffers = tuple(x for x in program.buffers if x.name != gone)
    return replace(program, steps=tuple(steps), buffers=(*buffers, space))


def _only_reader(program: Program, name: str) -> Kernel | None:
    kept = {s.buffer for s in program.returns} | {s.buffer for _, s in program.updates}
    users = [s for s in program.steps if name in _reads(s)]
    alone = len(users) == 1 and name not in kept
    return users[0] if alone and isinstance(users[0], Kernel) else None


def _reads(step: Step) -> set[str]:
    if isinstance(step, Kernel):
        return set(step.reads)
    return {s.buffer for s in _strided_in((step.args, step.kwargs))}


def _strided_in(arg: object) -> list[Strided]:
    if isinstance(arg, Strided):
        return [arg]
    return [s for a in arg for s in _strided_in(a)] if isinstance(arg, tuple) else []


def _axes(p: Product) -> tuple[Index, Index, Index, Var]:
    """Fresh variables of the product: batch, m, n (constants where of extent 1) and k."""
    return ix.var("b", p.batch), ix.var("m", p.m), ix.var("n", p.n), Var("k", p.k)


def _element(p: Product, axes: tuple[Index, Index, Index, Var], bias: bool = True) -> b.Expr:
    """The product's element at (b, m, n), bias included."""
    batch, m, n, k = axes

    def load(x: Strided, row: Index, column: Index) -> b.Load:
        index = (batch, row, column)[-len(x.shape) :]
        return b.Load(FLOAT32, x.buffer, ix.flatten(index, x.strides) + x.offset)

    dot: b.Expr = b.Dot(FLOAT32, k, load(p.left, m, k), load(p.right, k, n))
    if p.bias is None or not bias:
        return dot
    offset = ix.flatten((n,), p.bias.strides[-1:]) + p.bias.offset
    return b.Apply(FLOAT32, "add", (dot, b.Load(FLOAT32, p.bias.buffer, offset)))


def _variables(*xs: Index) -> tuple[Var, ...]:
    return tuple(x for x in xs if isinstance(x, Var))


def _stored(program: Program, p: Product) -> Kernel:
    """The product alone, stored where the library would have put it."""
    axes = _axes(p)
    batch, m, n, _ = axes
    offset = ix.flatten((batch, m, n), (p.m * p.n, p.n, 1))
    phase = Phase((), (), (Store(p.out, offset, _element(p, axes)),))
    return _kernel(
        p.call.name.removesuffix("_call") + "_kernel",
        p,
        _variables(*axes[:3]),
        (phase,),
        p.call.covers,
        p.call.origins,
    )


def _kernel(
    name: str,
    p: Product,
    rows: tuple[Var, ...],
    phases: tuple[Phase, ...],
    covers: tuple[str, ...],
    origins: tuple[str, ...],
) -> Kernel:
    reads = dict.fromkeys(e.buffer for f in phases for e in b.loads(*f.bodies))
    writes = dict.fromkeys(s.buffer for f in phases for s in f.stores)
    tile = Tile(threads=384, vector=1, items=1, lanes=1, stages=4)
    return Kernel(
        name, "contraction", rows, phases, tuple(reads), tuple(writes), tile, covers, origins
    )


def _hosted(program: Program, reader: Kernel, p: Product) -> Kernel | None:
    """The reader with the product in place of its loads, or None if its nest does not fit."""
    axes = _axes(p)
    found = _rows_and_cols(reader, p, axes)
    if found is None:
        return None
    rows, mapping = found
    batch, m, n, _ = axes
    here = ix.flatten((batch, m, n), (p.m * p.n, p.n, 1))
    element = _element(p, axes)
    phases = []
    for phase in reader.phases:
        cols = _variables(*(ix.substitute(c, mapping) for c in phase.cols))
        new = _mapped(phase, cols, mapping, p.out, here, element)
        if new is None:
            return None
        phases.append(new)
    covers = (*p.call.covers, *reader.covers)
    origins = tuple(dict.fromkeys((*p.call.origins, *reader.origins)))
    return _kernel(reader.name, p, rows, tuple(phases), covers, origins)


def _rows_and_cols(
    reader: Kernel, p: Product, axes: tuple[Index, Index, Index, Var]
) -> tuple[tuple[Var, ...], Mapping[Index, Index]] | None:
    """The reader's rows among (b, m, n), and its loop variables in terms of them."""
    batch, m, n, _ = axes
    first, rest = reader.phases[0], reader.phases[1:]
    if any(f.keeps for f in reader.phases) or any(f.cols or f.folds for f in rest):
        return None
    if not first.cols:
        if first.folds or rest:
            return None
        mapping = _numbered(reader.rows, (batch, m, n))
        return None if mapping is None else (_variables(batch, m, n), mapping)
    if len(first.folds) != 1 or first.folds[0].kind not in FOLDS or any(s for s in first.stores):
        return None
    over_n = reader.anchor == "row_reduce"
    kept, folded = ((batch, m), n) if over_n else ((batch, n), m)
    rows, cols = _numbered(reader.rows, kept), _numbered(first.cols, (folded,))
    if rows is None or cols is None:
        return None
    return _variables(*kept), {**rows, **cols}


def _numbered(loops: tuple[Var, ...], axes: tuple[Index, ...]) -> Mapping[Index, Index] | None:
    """Loop variables as digits of the row-major number of `axes`, if the points are as many."""
    extents = [a.hi + 1 for a in axes]
    number = ix.flatten(axes, ix.row_major(tuple(extents)))
    total = number.hi + 1
    shape = tuple(v.extent for v in loops)
    points = 1
    for v in loops:
        points *= v.extent
    if points != total:
        return None
    return dict(zip(loops, ix.unflatten(number, shape), strict=True))


def _mapped(
    phase: Phase,
    cols: tuple[Var, ...],
    mapping: Mapping[Index, Index],
    out: str,
    here: Index,
    element: b.Expr,
) -> Phase | None:
    """The phase over the product's variables; None if it reads the product anywhere but here."""
    elsewhere = False

    def body(e: b.Expr) -> b.Expr:
        nonlocal elsewhere

        def change(x: b.Expr) -> b.Expr | None:
            nonlocal elsewhere
            if isinstance(x, b.Load) and x.buffer == out:
                elsewhere |= x.offset != here
                return element
            return None

        return b.rebuild(b.substitute(e, mapping), change, {})

    folds = tuple(Fold(f.name, f.kind, f.dtype, body(f.body), f.position) for f in phase.folds)
    stores = tuple(
        Store(s.buffer, ix.substitute(s.offset, mapping), body(s.body)) for s in phase.stores
    )
    return None if elsewhere else Phase(cols, folds, stores)


def workspace_bytes(p: Product, kernel: Kernel) -> int:
    """Bytes the skeleton needs: `plan_of` of emit/skeletons/gemm_sm90_launch.cuh."""
    stream, planes = (p.right, p.left) if p.streams_right else (p.left, p.right)
    rows, columns = (p.n, p.m) if p.streams_right else (p.m, p.n)

    def batches(x: Strided) -> int:
        return p.batch if len(x.shape) == 3 and x.strides[0] else 1

    def up(x: int, to: int) -> int:
        return -(-x // to) * to

    padded_columns, padded_depth = up(columns, TILE_PLANES), up(p.k, CHUNK)
    folds = kernel.phases[0].folds
    over_n = bool(folds) and ix.var("n", p.n) in kernel.phases[0].cols
    partial = 0
    if folds:
        folds_rows = over_n == p.streams_right
        slabs = up(rows, FOLD_ROWS) // FOLD_ROWS if folds_rows else padded_columns // TILE_PLANES
        partial = p.batch * slabs * (columns if folds_rows else rows) * 4
    copy = 0
    if not is_addressable(stream):
        inner, outer = (p.k, rows) if _k_stride(p, stream) == 1 else (rows, p.k)
        copy = batches(stream) * up(inner, 4) * outer * 4
    sizes = (
        batches(stream) * rows * 4,
        batches(planes) * padded_columns * 8,
        batches(planes) * 3 * columns * padded_depth * 2,
        partial,
        copy,
    )
    total = 256
    for size in sizes:
        total = up(total + size, 256)
    return total


def _k_stride(p: Product, x: Strided) -> int:
    return x.strides[-1] if x is p.left else x.strides[-2]


def is_addressable(x: Strided) -> bool:
    """Whether tensor maps can address an operand as it is: 16-byte rows and start."""
    row, column = x.strides[-2:]
    pitch = row if column == 1 else column
    batch = x.strides[0] if len(x.shape) == 3 else 0
    return x.offset % 4 == 0 and pitch % 4 == 0 and batch % 4 == 0
