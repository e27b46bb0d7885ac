"""Level 2: kernels as loop nests over scalar bodies, the calls between them, and whole programs.

A kernel is a nest over `rows` with a list of phases per row; a phase visits every point of its
`cols` and keeps values, folds or scans them into named results, or stores them. That one shape
covers pointwise kernels (one phase, no cols), row reductions, softmax and norms (several phases
over one row) and column reductions; the anchor and the tile say how the nest maps to threads, never
what it computes. No C text and no torch live here.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Literal, TypeAlias

from .body import Dot, Expr, Guarded, Load, Ref, loads, walk
from .conv_product import ConvShape
from .dtypes import INT64, DType
from .index import Conds, Index, Var, coefficient, variables
from .nodes import Arg as Arg
from .nodes import Shape

BufferRole = Literal["input", "param", "buffer", "constant", "temp", "output"]


@dataclass(frozen=True, slots=True)
class Buffer:
    """A tensor in device memory: strides and sizes in elements."""

    name: str
    shape: Shape
    dtype: DType
    strides: tuple[int, ...]
    role: BufferRole

    @property
    def given(self) -> bool:
        """Whether it is there before the first step: the program may read it at once."""
        return self.role not in ("temp", "output")

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.bytes


ReduceKind = Literal["sum", "prod", "max", "min", "any", "all", "argmax", "argmin"]


@dataclass(frozen=True, slots=True)
class Fold:
    """`name = fold(kind, body over the phase's cols)`; `dtype` is the accumulator's type.

    For argmax and argmin the result is the int64 `position` (over the cols) of the extreme value.
    """

    name: str
    kind: ReduceKind
    dtype: DType
    body: Expr
    position: Index | None = None

    @property
    def result_dtype(self) -> DType:
        """The type of a Ref to the result."""
        return self.dtype if self.position is None else INT64


ScanKind = Literal["sum", "prod", "max", "min", "logsumexp", "argmax", "argmin"]


@dataclass(frozen=True, slots=True)
class Prefix:
    """`name`: at each point of the phase's one column variable, the fold of `body` up to there.

    "Up to" is from the first column on, from the last with `reverse`, and without the point itself
    with `exclusive`. For argmax and argmin it is the int64 `position` of the extreme value, of ties
    the one met last. Later prefixes, folds and stores of the phase read it as `Ref(name)`.
    """

    name: str
    kind: ScanKind
    dtype: DType
    body: Expr
    reverse: bool = False
    exclusive: bool = False
    position: Index | None = None

    @property
    def result_dtype(self) -> DType:
        """The type of a Ref to the value."""
        return self.dtype if self.position is None else INT64


@dataclass(frozen=True, slots=True)
class Store:
    """`buffer[offset] = body`; the body's dtype is the buffer's.

    `inside`: only where this holds; of contractions, whose points may be more than the results.
    """

    buffer: str
    offset: Index
    body: Expr
    inside: Conds = ()


@dataclass(frozen=True, slots=True)
class Keep:
    """`name`: the value of `body` at each point of the phase's cols, kept on chip.

    Bodies of this phase and of later phases with the same cols read it as `Ref(name)` at their own
    point. Registers on CUDA, a row buffer on the CPU.
    """

    name: str
    body: Expr


@dataclass(frozen=True, slots=True)
class Phase:
    """One pass over `cols` (none: a single point) that keeps, folds and stores values.

    At each point the keeps are computed first, then the scans, in order; folds and stores may refer
    to them. A `Ref` to a fold of an earlier phase is a value per row. Scans of one phase run the
    same way over its one column variable, and their values do not outlive it.
    """

    cols: tuple[Var, ...]
    folds: tuple[Fold, ...] = ()
    stores: tuple[Store, ...] = ()
    keeps: tuple[Keep, ...] = ()
    scans: tuple[Prefix, ...] = ()

    @property
    def extent(self) -> int:
        return prod(v.extent for v in self.cols)

    @property
    def reverse(self) -> bool:
        """Whether its scans run from the last column to the first."""
        return any(s.reverse for s in self.scans)

    @property
    def bodies(self) -> tuple[Expr, ...]:
        return tuple(x.body for x in (*self.keeps, *self.scans, *self.folds, *self.stores))


AnchorName = Literal[
    "elementwise",
    "transpose",
    "row_reduce",
    "row_cluster",
    "column_reduce",
    "column_stream",
    "window",
    "stencil",
    "row_scan",
    "column_scan",
    "contraction",
]


# How a contraction's products are computed. split: float32 from three products of float16 terms.
# six: float32 from six products of bfloat16 terms. native: in the operands' 16-bit type. bf16,
# tf32: float32 operands rounded to that type. fma: by float32 multiply-adds. conv: a convolution
# of operands rounded to float16, summed in float32. conv_split: of three products of their terms.
Scheme = Literal["", "split", "six", "native", "bf16", "tf32", "fma", "conv", "conv_split"]


@dataclass(frozen=True, slots=True)
class Tile:
    """How a nest maps to the machine; printed in the kernel's header and accepted as an override.

    `threads` per block (CUDA) ; `vector` elements per memory access along the fastest axis; `items`
    vectors per thread in flight; `lanes` threads that share one row (row_reduce, row_scan) or that
    split the columns (column_reduce, column_scan). row_cluster: `lanes / threads` blocks share a
    row, whose kept values are in shared memory. elementwise: neighbouring blocks take the same
    place of `lanes` outermost rows. column_stream: `items` columns per chunk of shared memory,
    `stages` chunks in flight. transpose: a tile has `lanes` points along the axis that its loads
    walk, `threads * items` in all. window: `lanes` threads share a row, `items` rows of results are
    computed per step (along one axis alone: vectors of a thread), `stages` steps by a block.
    stencil: a thread takes `items` windows below one another. Scans: with two `stages` the next
    chunk is fetched while one is scanned. contraction: `lanes` slices of what is summed over, of a
    cluster each; by fma: a thread has `items` rows and `lanes` columns; of a convolution: `vector`
    channels per copy, `items` blocks of 64 rows, `lanes` columns, `stages` taps along the width
    that share a copy; `own`: the warps that multiply apply the epilogue, too.
    """

    threads: int = 256
    vector: int = 1
    items: int = 1
    lanes: int = 1
    stages: int = 1
    own: bool = False


@dataclass(frozen=True, slots=True)
class Kernel:
    """A loop nest. `reads` and `writes` name its buffers in parameter order.

    `covers` are the level-1 operations it computes, `origins` the user's source lines. `workspace`
    names a buffer of bytes that the kernel uses as it likes ("": none). `scheme` is that of a
    contraction, `conv` the geometry of a convolution's.
    """

    name: str
    anchor: AnchorName
    rows: tuple[Var, ...]
    phases: tuple[Phase, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    tile: Tile
    covers: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    workspace: str = ""
    scheme: Scheme = ""
    conv: ConvShape | None = None

    @property
    def row_count(self) -> int:
        return prod(v.extent for v in self.rows)

    @property
    def bodies(self) -> tuple[Expr, ...]:
        return tuple(b for p in self.phases for b in p.bodies)


def dot_of(kernel: Kernel) -> Dot:
    """The product of a contraction kernel, which has one."""
    return next(e for e in walk(*kernel.bodies) if isinstance(e, Dot))


def shared_slots(phases: tuple[Phase, ...]) -> dict[str, tuple[int, int]]:
    """A place in shared memory, (number, bytes per point), for each kept value that a later phase
    refers to.

    A value may take the place of one of its size that is referred to in its own phase for the last
    time: a point is read before it is written.
    """
    last = {e.name: n for n, p in enumerate(phases) for e in walk(*p.bodies) if isinstance(e, Ref)}
    slots: dict[str, tuple[int, int]] = {}
    busy: dict[tuple[int, int], int] = {}  # the last phase that needs what is in a place
    for n, p in enumerate(phases):
        for k in p.keeps:
            if p.cols and last.get(k.name, n) > n:
                size = k.body.dtype.bytes
                free = (s for s, until in busy.items() if until <= n and s[1] == size)
                slots[k.name] = slot = next(free, (len(busy), size))
                busy[slot] = last[k.name]
    return slots


def streamed_load(kernel_rows: tuple[Var, ...], phases: tuple[Phase, ...]) -> Load | None:
    """The one load of a column reduction that walks whole planes of contiguous memory, if any.

    Its offset is `plane + k * n + j` for the only column variable k and the innermost row j of
    extent n, so consecutive k are consecutive memory whatever n's alignment. Phases after the first
    must only store, once per row.
    """
    first, rest = phases[0], phases[1:]
    plain = first.folds and len(first.cols) == 1
    plain = plain and not (first.keeps or first.scans or first.stores)
    if not kernel_rows or not plain or any(p.cols or p.folds or p.keeps for p in rest):
        return None
    (k,), j = first.cols, kernel_rows[-1]
    moving = [e for e in loads(*first.bodies) if k in variables(e.offset)]
    if len(moving) != 1 or any(isinstance(e, Guarded) for e in walk(*first.bodies)):
        return None
    offset = moving[0].offset
    whole = coefficient(offset, k) == j.extent and coefficient(offset, j) == 1
    return moving[0] if whole and not moving[0].indirect else None


@dataclass(frozen=True, slots=True)
class Transposition:
    """Loads that are contiguous along `loaded` in a nest whose stores are along `stored`."""

    loaded: Var
    stored: Var
    loads: tuple[Load, ...]


# Loads that one tile of shared memory each is spent on.
STAGED_LOADS = 4


def transposition(rows: tuple[Var, ...], phases: tuple[Phase, ...]) -> Transposition | None:
    """What a pointwise nest has to turn around in shared memory, if anything.

    A guarded or indirect load is not staged: which elements it reads depends on more than the tile.
    """
    offsets = [s.offset for p in phases for s in p.stores]
    bodies = [x for p in phases for x in p.bodies]
    if any(p.cols for p in phases) or any(isinstance(e, Guarded) for e in walk(*bodies)):
        return None
    stored = [v for v in rows if all(coefficient(o, v) == 1 for o in offsets)]
    if len(stored) != 1:
        return None
    (q,) = stored
    across = [e for e in loads(*bodies) if not e.indirect and _is_across(e.offset, q)]
    for p in rows:
        staged = tuple(e for e in across if coefficient(e.offset, p) == 1)
        if p != q and staged:
            return Transposition(p, q, staged) if len(staged) <= STAGED_LOADS else None
    return None


def _is_across(offset: Index, v: Var) -> bool:
    """Whether neighbours along v are apart in memory."""
    return v in variables(offset) and coefficient(offset, v) not in (None, 1)


@dataclass(frozen=True, slots=True)
class Strided:
    """A buffer seen with another shape: `torch.as_strided(buffer, shape, strides, offset)`."""

    buffer: str
    shape: Shape
    strides: tuple[int, ...]
    offset: int = 0


@dataclass(frozen=True, slots=True)
class LibraryCall:
    """A call of a torch function on the current stream.

    `function` is Python text ("torch.addmm", "torch.ops.aten.cumsum.default"); `args` may hold
    Strided operands; `outs` names the buffers of its results. `extern` marks an operation that
    fusewright cannot express (a node Extern), as opposed to a contraction handed to the library.
    """

    name: str
    function: str
    args: tuple["LibraryArg", ...]
    kwargs: tuple[tuple[str, "LibraryArg"], ...]
    outs: tuple[str, ...]
    flops: int = 0
    extern: bool = False
    covers: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()

    @property
    def operands(self) -> tuple["Strided", ...]:
        """Every tensor among the (nested) arguments."""
        return tuple(_strided_in((*self.args, *(v for _, v in self.kwargs))))

    @property
    def reads(self) -> tuple[str, ...]:
        """The buffers of its operands, as a kernel's."""
        return tuple(s.buffer for s in self.operands)

    @property
    def writes(self) -> tuple[str, ...]:
        """The buffers of its results; "" among `outs` is a result that nobody needs."""
        return tuple(filter(None, self.outs))

    @property
    def is_convolution(self) -> bool:
        """Whether the result has its node's axes; a product's is memory seen with other axes."""
        return "conv" in self.function


LibraryArg: TypeAlias = "Strided | Arg | tuple[LibraryArg, ...]"


def _strided_in(args: Iterable[LibraryArg]) -> Iterator[Strided]:
    for arg in args:
        if isinstance(arg, Strided):
            yield arg
        elif isinstance(arg, tuple):
            yield from _strided_in(arg)


Step = Kernel | LibraryCall


@dataclass(frozen=True, slots=True)
class WhyNot:
    """One refusal of the scheduler: what was considered and the reason it was not done."""

    what: str
    reason: str


@dataclass(frozen=True, slots=True)
class Program:
    """Everything one forward call executes, in order.

    `buffers` holds every tensor by name (inputs, outputs, temporaries); `returns` gives for each
    output of the graph the Strided view to return or the name of the input it is; `updates` lists
    (buffer of the input, new value) copies that end the call (mutations).
    """

    buffers: tuple[Buffer, ...]
    steps: tuple[Step, ...]
    returns: tuple[Strided, ...]
    updates: tuple[tuple[str, Strided], ...] = ()
    why_not: tuple[WhyNot, ...] = ()

    @property
    def kept(self) -> frozenset[str]:
        """Buffers that are needed after the last step."""
        kept = (*self.returns, *(s for _, s in self.updates))
        return frozenset(s.buffer for s in kept)

    def buffer(self, name: str) -> Buffer:
        return next(b for b in self.buffers if b.name == name)
