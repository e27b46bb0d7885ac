"""A program's steps as the emitted forward takes them: segments of kernels, and library calls.

What an entry point is called, what it is given and what is allocated for it is decided here; no
text is printed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, groupby

from fusewright.ir.kernel import Buffer, Kernel, LibraryCall, Program

from .common import buffer_order


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
