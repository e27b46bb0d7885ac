"""What a product can compute of its operands as it splits them, so that no kernel does it before.

Both operands of the split product are converted to 16-bit terms on every call: the smaller one
once, in a kernel of its own, the streamed one each time a tile reads it. A pointwise kernel whose
result only the product reads can run in front of either; whether it should is a matter of modelled
time.
"""

from dataclasses import dataclass

from fusewright.ir import body as b
from fusewright.ir import index as ix
from fusewright.ir import offsets
from fusewright.ir.index import Index, Var
from fusewright.ir.kernel import Kernel, LibraryCall, Program, Store, Strided
from fusewright.ir.operand import base_load, streams, strides_of
from fusewright.ir.phases import without_keeps
from fusewright.ir.scalar import OPS
from fusewright.target.arch import Arch
from fusewright.target.program_cost import kernel_bytes

# The smaller operand is computed twice: for the range of a row, and to be split.
PLANE_PASSES = 2


@dataclass(frozen=True, slots=True)
class Prologue:
    """`kernel` need not run: the operand's element is `value`, its `base` lies at `memory`."""

    kernel: Kernel
    value: b.Expr
    memory: Strided
    can_stream: bool

    @property
    def operations(self) -> int:
        """Per element, about: what is loaded beside the base counts two."""
        parts = list(b.walk(self.value))
        ops = sum(OPS[e.op].cost for e in parts if isinstance(e, b.Apply))
        others = sum(isinstance(e, b.Convert | b.Choose | b.Guarded) for e in parts)
        return ops + others + 2 * (len(b.loads(self.value)) - 1)


def find(
    program: Program, call: LibraryCall, x: Strided, axes: tuple[Index, Index, Index]
) -> Prologue | None:
    """The producer of operand `x` of `call`, whose axes (batch first) are `axes`, if the product
    could replace it: it must be pointwise, store nothing else, and be read by nobody else."""
    kernels = (s for s in program.steps if isinstance(s, Kernel) and s.writes == (x.buffer,))
    kernel = next(kernels, None)
    if kernel is None or kernel.anchor == "contraction":  # another product: it stays whole
        return None
    if not _reads_alone(program, call, x.buffer):
        return None
    phases = without_keeps(kernel.phases)
    stores = [s for p in phases for s in p.stores]
    if len(stores) != 1 or any(p.cols or p.folds or p.scans for p in kernel.phases):
        return None
    at = offsets.flatten(axes[-len(x.shape) :], x.strides) + x.offset
    mapping = _solved(stores[0], kernel.rows, at)
    return None if mapping is None else _prologue(kernel, stores[0].body, mapping, x, axes)


def _reads_alone(program: Program, call: LibraryCall, name: str) -> bool:
    return name not in program.kept and all(s == call for s in program.steps if name in s.reads)


def _solved(store: Store, rows: tuple[Var, ...], at: Index) -> dict[Index, Index] | None:
    """The kernel's rows where it stores element `at`, if its store enumerates memory densely."""
    out: dict[Index, Index] = {}
    steps = [(ix.coefficient(store.offset, v) or 0, v) for v in rows]
    if any(not c for c, _ in steps) or ix.parts(store.offset)[0]:
        return None
    expected = 1
    for c, v in sorted(steps, key=lambda pair: pair[0]):
        if c != expected:
            return None
        out[v] = ix.mod(ix.div(at, c), v.extent)
        expected *= v.extent
    return out


def _prologue(
    kernel: Kernel,
    body: b.Expr,
    mapping: dict[Index, Index],
    x: Strided,
    axes: tuple[Index, Index, Index],
) -> Prologue | None:
    value = b.substitute(body, mapping)
    odd = any(isinstance(e, b.Checked | b.Load) and e.operands for e in b.walk(value))
    if odd or not b.loads(value):
        return None
    base = base_load(value, *axes[1:])
    own, used = set(ix.variables(base.offset)), ix.variables(*(e.offset for e in b.loads(value)))
    strides = strides_of(base, axes)
    if strides is None or any(v in axes and v not in own for v in used):
        return None
    start = ix.substitute(base.offset, {v: ix.const(0) for v in axes if isinstance(v, Var)})
    memory = Strided(base.buffer, x.shape, strides[-len(x.shape) :], ix.constant_value(start) or 0)
    return Prologue(kernel, value, memory, streams(value, *axes[1:]) and 1 in strides[1:])


def pass_seconds(p: Prologue, program: Program, arch: Arch) -> float:
    """What the producer takes as a kernel of its own."""
    moved = kernel_bytes(p.kernel, {x.name: x for x in program.buffers})
    return arch.launch + moved / arch.copy_rate


def planes_seconds(p: Prologue, arch: Arch) -> float:
    """What it adds to the split of the smaller operand: arithmetic alone."""
    return PLANE_PASSES * p.operations * p.kernel.row_count / (arch.float_rate / 2)
