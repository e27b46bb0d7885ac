"""A program's steps as the emitted forward takes them: segments of kernels, and library calls.

What an entry point is called, what it is given and what is allocated for it is decided here; no
text is printed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, groupby

from fusewright.ir import offsets
from fusewright.ir.kernel import Buffer, Kernel, LibraryCall, Program

from .common import buffer_order

# From this size on, memory may come straight from the system at each call, its pages mapped anew:
# glibc's malloc hands blocks out again, but gives the end of its heap back when a few large ones
# are free.
FRESH_BYTES = 4 << 20
# torch functions whose result is always row-major, so that its memory can be seen with other axes,
# and which write it where they are told to.
ROW_MAJOR_RESULTS = ("torch.mm", "torch.addmm", "torch.bmm", "torch.baddbmm")


@dataclass(frozen=True, slots=True)
class Segment:
    """A maximal run of kernels between library calls: one C function, called once per forward.

    `buffers` are its parameters: every buffer it touches, in the program's order. `fresh` are
    those of them that are allocated for it: nothing before it has written them.
    """

    number: int
    kernels: tuple[Kernel, ...]
    buffers: tuple[Buffer, ...]
    fresh: tuple[Buffer, ...]

    @property
    def entry(self) -> str:
        """Name of the C function."""
        return f"forward_{self.number}"

    @property
    def wrapper(self) -> str:
        """Name of the function around it in the classical binding, and of its Python binding."""
        return f"fused_{self.number}"


def units(program: Program) -> Iterator[Segment | LibraryCall]:
    """The segments and library calls in the order of execution."""
    known = {b.name for b in program.buffers if b.given}
    numbers = count()
    for are_kernels, run in groupby(program.steps, key=lambda s: isinstance(s, Kernel)):
        steps = tuple(run)
        if not are_kernels:
            calls = [s for s in steps if isinstance(s, LibraryCall)]
            known.update(name for call in calls for name in call.outs)
            yield from calls
            continue
        kernels = tuple(s for s in steps if isinstance(s, Kernel))
        used = {name for k in kernels for name in buffer_order(k)}
        buffers = tuple(b for b in program.buffers if b.name in used)
        fresh = tuple(b for b in buffers if b.name not in known)
        known |= used
        yield Segment(next(numbers), kernels, buffers, fresh)


def segments(program: Program) -> tuple[Segment, ...]:
    """The segments in the order of execution."""
    return tuple(u for u in units(program) if isinstance(u, Segment))


def matrix_shape(call: LibraryCall) -> tuple[int, ...]:
    """The shape of a matrix product's result; () where that is not known from the operands."""
    tensors = call.operands
    if call.function not in ROW_MAJOR_RESULTS or len(tensors) < 2:
        return ()
    return (*tensors[-2].shape[:-1], tensors[-1].shape[-1])


def large_result(program: Program, call: LibraryCall) -> Buffer | None:
    """The buffer that a product is told to write into, because its pages take long to map."""
    if call.function not in ROW_MAJOR_RESULTS or len(call.outs) != 1:
        return None
    buffer = program.buffer(call.outs[0])
    plain = buffer.shape == matrix_shape(call)
    plain = plain and buffer.strides == offsets.row_major(buffer.shape)
    large = plain and buffer.nbytes >= FRESH_BYTES
    return buffer if large and any(isinstance(s, Kernel) for s in program.steps) else None


def has_large_results(program: Program) -> bool:
    """Whether a product of the program has a `large_result`."""
    calls = (s for s in program.steps if isinstance(s, LibraryCall))
    return any(large_result(program, c) is not None for c in calls)
