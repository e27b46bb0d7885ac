"""What a scheduled program costs, from the IR alone: float operations and compulsory bytes."""

from collections.abc import Mapping
from math import prod

from fusewright.ir import body as b
from fusewright.ir import index as ix
from fusewright.ir.kernel import (
    Buffer,
    Kernel,
    LibraryCall,
    Phase,
    Program,
    Step,
)
from fusewright.ir.scalar import OPS


def kernel_flops(kernel: Kernel) -> int:
    """Float operations of a kernel; a transcendental counts about 10, a fold one per point."""
    points = kernel.row_count * sum(p.extent * _point_flops(p) for p in kernel.phases)
    # However many phases refer to a product's element, it is computed once.
    inner = ((e, p.extent) for p in kernel.phases for e in b.walk(*p.bodies))
    products = {e: n for e, n in inner if isinstance(e, b.Dot)}
    operands = sum(_operand_flops(x) for e in products for x in e.operands)
    summed = sum(2 * e.k.extent * n for e, n in products.items())
    return points + operands + kernel.row_count * summed


def _point_flops(phase: Phase) -> int:
    inner = tuple(b.walk(*phase.bodies))
    operands = {x for e in inner if isinstance(e, b.Dot) for x in b.walk(*e.operands)}
    ops = sum(OPS[e.op].cost for e in inner if isinstance(e, b.Apply) and e not in operands)
    return ops + len(phase.folds) + len(phase.scans)


def _operand_flops(x: b.Expr) -> int:
    """Of a product's operand that is computed on the way: once per element."""
    ops = sum(OPS[e.op].cost for e in b.walk(x) if isinstance(e, b.Apply))
    axes = ix.variables(*(e.offset for e in b.loads(x)))
    return ops * prod(v.extent for v in axes)


def kernel_bytes(kernel: Kernel, buffers: Mapping[str, Buffer]) -> int:
    """Bytes that a kernel must move: each buffer it touches once, or what it reads of it."""
    touched: dict[str, int] = {}
    for phase in kernel.phases:
        loads = (e for e in b.loads(*phase.bodies))
        for name, points in (
            *((e.buffer, _points(e.offset, e.indirect, kernel, phase)) for e in loads),
            *((s.buffer, _points(s.offset, (), kernel, phase)) for s in phase.stores),
        ):
            touched[name] = touched.get(name, 0) + points
    return sum(
        min(buffers[name].nbytes, points * buffers[name].dtype.bytes)
        for name, points in touched.items()
    )


def _points(
    offset: ix.Index, indirect: tuple[tuple[b.Expr, int], ...], kernel: Kernel, phase: Phase
) -> int:
    """How many elements an access can reach."""
    if indirect:
        return kernel.row_count * phase.extent
    return prod(v.extent for v in ix.variables(offset))


def call_bytes(call: LibraryCall, buffers: Mapping[str, Buffer]) -> int:
    """Bytes of a call's operands and results, each once."""
    operands = dict.fromkeys(call.operands)
    read = sum(prod(s.shape) * buffers[s.buffer].dtype.bytes for s in operands)
    return read + sum(buffers[o].nbytes for o in call.writes)


def step_flops(step: Step) -> int:
    """Float operations of a step; of a foreign op those the scheduler knows, if any."""
    return kernel_flops(step) if isinstance(step, Kernel) else step.flops


def step_bytes(step: Step, program: Program) -> int:
    """Compulsory bytes of a step."""
    buffers = {x.name: x for x in program.buffers}
    if isinstance(step, Kernel):
        return kernel_bytes(step, buffers)
    return call_bytes(step, buffers)
