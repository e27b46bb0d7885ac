"""Kernels built by hand, compiled and run: shared by the tests of the printers.

CUDA kernels run on the CPU, through `simt.shim`.
"""

import ctypes
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from fusewright.emit.segment import segments
from fusewright.emit.unit import translation_unit
from fusewright.ir import body as b
from fusewright.ir import dtypes as dt
from fusewright.ir import index as ix
from fusewright.ir import offsets
from fusewright.ir.kernel import Buffer, Kernel, Phase, Program, Strided, Tile
from fusewright.run.build import compile_cpp
from fusewright.run.interpret import interpret_program
from fusewright.target.arch import arch
from simt.shim import Library, start, tell

F32 = dt.FLOAT32
CPU, CUDA = arch("cpu"), arch("cuda:sm_90a")
FLAGS = ("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-Wall", "-Werror")


def var(name: str, extent: int) -> ix.Var:
    return ix.Var(name, extent)


def buffer(name, shape, role="input", dtype=F32) -> Buffer:
    return Buffer(name, tuple(shape), dtype, offsets.row_major(tuple(shape)), role)


def load(name, offset, dtype=F32) -> b.Load:
    return b.Load(dtype, name, ix.as_index(offset))


def op(name, *args, dtype=None) -> b.Apply:
    from fusewright.ir.scalar import OPS, result_dtype

    return b.Apply(result_dtype(OPS[name], dtype or args[0].dtype), name, args)


def lit(value, dtype=F32) -> b.Lit:
    return b.Lit(dtype, value)


def ref(name, dtype=F32) -> b.Ref:
    return b.Ref(dtype, name)


def kernel(name, anchor, rows, phases, tile=None) -> Kernel:
    """A kernel whose reads and writes are found in its phases."""
    reads = dict.fromkeys(x.buffer for p in phases for x in b.loads(*p.bodies))
    writes = dict.fromkeys(s.buffer for p in phases for s in p.stores)
    return Kernel(
        name, anchor, tuple(rows), tuple(phases), tuple(reads), tuple(writes), tile or Tile()
    )


def program(buffers, *kernels) -> Program:
    outputs = tuple(
        Strided(x.name, x.shape, x.strides) for x in buffers if x.role == "output"
    )
    return Program(tuple(buffers), tuple(kernels), outputs)


@dataclass(frozen=True)
class Case:
    """A program of one kernel, its inputs, and the outputs that eager torch gives."""

    program: Program
    inputs: dict[str, torch.Tensor]
    expected: tuple[torch.Tensor, ...]


def merged(cases: Sequence[Case]) -> Program:
    """One program of all cases' kernels; names get the number of their case."""
    parts = [_numbered(c.program, n) for n, c in enumerate(cases)]
    return Program(
        tuple(x for p in parts for x in p.buffers),
        tuple(s for p in parts for s in p.steps),
        tuple(r for p in parts for r in p.returns),
    )


def run_together(cases: Sequence[Case], run: Callable) -> Iterator[tuple[Case, list[torch.Tensor]]]:
    """Every case with its outputs; all of them in one translation unit, which saves time.

    Fails when a kernel reports an error.
    """
    whole = merged(cases)
    inputs = {f"{k}_{n}": v for n, c in enumerate(cases) for k, v in c.inputs.items()}
    codes, outputs = run(whole, inputs)
    assert not any(codes)
    rest = iter(outputs)
    for c in cases:
        yield c, [next(rest) for _ in c.program.returns]


def check_together(cases: Sequence[Case], run: Callable, **tolerance) -> None:
    """All cases against what they expect."""
    for case, outputs in run_together(cases, run):
        for y, e in zip(outputs, case.expected, strict=True):
            torch.testing.assert_close(
                y, e, equal_nan=True, **tolerance,
                msg=lambda m, k=case.program.steps[0]: f"{k.name} {k.tile}: {m}",
            )


def _numbered(p: Program, n: int) -> Program:
    """The program with `_n` after every buffer's and kernel's name."""

    def load_of(e: b.Expr) -> b.Expr | None:
        if not isinstance(e, b.Load):
            return None
        indirect = tuple((b.rebuild(x, load_of), stride) for x, stride in e.indirect)
        return replace(e, buffer=f"{e.buffer}_{n}", indirect=indirect)

    def body(x):
        return replace(x, body=b.rebuild(x.body, load_of))

    def stored(x):
        return replace(body(x), buffer=f"{x.buffer}_{n}")

    def phase(x: Phase) -> Phase:
        keeps, folds = tuple(map(body, x.keeps)), tuple(map(body, x.folds))
        stores, scans = tuple(map(stored, x.stores)), tuple(map(body, x.scans))
        return replace(x, keeps=keeps, folds=folds, stores=stores, scans=scans)

    def named(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(f"{x}_{n}" for x in names)

    steps = tuple(
        replace(k, name=f"{k.name}_{n}", phases=tuple(map(phase, k.phases)),
                reads=named(k.reads), writes=named(k.writes))
        for k in p.steps
    )
    buffers = tuple(replace(x, name=f"{x.name}_{n}") for x in p.buffers)
    return Program(buffers, steps, tuple(replace(r, buffer=f"{r.buffer}_{n}") for r in p.returns))


def run_on_cpu(p: Program, inputs: dict[str, torch.Tensor], cache: Path | None = None):
    """Compiles the program, runs it, and returns (codes of the segments, outputs in order)."""
    source = translation_unit(p, CPU)
    library = ctypes.CDLL(str(compile_cpp(source, flags=FLAGS, cache_dir=cache)))
    memory = {}
    for x in p.buffers:
        if x.role == "input":
            memory[x.name] = inputs[x.name].contiguous()
        else:
            memory[x.name] = torch.empty(x.shape, dtype=getattr(torch, x.dtype.name))
    codes = []
    for segment in segments(p):
        args = [ctypes.c_void_p(memory[x.name].data_ptr()) for x in segment.buffers]
        codes.append(getattr(library, segment.entry)(*args))
    return codes, [memory[r.buffer] for r in p.returns]


def run_on_simt(p: Program, inputs: dict[str, torch.Tensor]):
    """Runs the CUDA kernels of the program on fibers; returns (codes of the segments, outputs).

    Raises SimtError for what must not happen in a kernel.
    """
    library = Library(translation_unit(p, CUDA))
    memory = {
        x.name: inputs[x.name].contiguous() if x.role == "input" else _poisoned(x)
        for x in p.buffers
    }
    start(seed=0)
    codes = []
    for segment in segments(p):
        for x in segment.buffers:
            tell(x.name, memory[x.name], x.role == "input")
        pointers = [memory[x.name].data_ptr() for x in segment.buffers]
        codes.append(library.call(segment.entry, pointers))
    return codes, [memory[r.buffer] for r in p.returns]


def _poisoned(x: Buffer) -> torch.Tensor:
    memory = torch.empty(x.shape, dtype=getattr(torch, x.dtype.name))
    return memory.fill_(float("nan") if x.dtype.is_float else -1)


def check_on_cpu(p: Program, inputs: dict[str, torch.Tensor], **tolerance) -> None:
    """The compiled program against the interpreter."""
    codes, actual = run_on_cpu(p, inputs)
    expected = interpret_program(p, inputs).outputs
    assert not any(codes)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, equal_nan=True, **tolerance)


def check_on_simt(p: Program, inputs: dict[str, torch.Tensor], **tolerance) -> None:
    """The CUDA kernels, run on fibers, against the interpreter."""
    codes, actual = run_on_simt(p, inputs)
    expected = interpret_program(p, inputs).outputs
    assert not any(codes)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, equal_nan=True, **tolerance)
