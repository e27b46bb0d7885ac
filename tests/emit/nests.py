"""Kernels built by hand, compiled for the CPU and run: shared by the tests of the printers."""

import ctypes
from pathlib import Path
from types import SimpleNamespace

import torch

from fusewright.emit.unit import entry_buffers, entry_name, segments, translation_unit
from fusewright.ir import body as b
from fusewright.ir import dtypes as dt
from fusewright.ir import index as ix
from fusewright.ir.kernel import Buffer, Kernel, Program, Strided, Tile
from fusewright.run.build import compile_cpp
from fusewright.run.interpret import interpret_program

F32 = dt.FLOAT32
CPU, CUDA = SimpleNamespace(name="cpu"), SimpleNamespace(name="cuda:sm_90a")
FLAGS = ("-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-Wall", "-Werror")


def var(name: str, extent: int) -> ix.Var:
    return ix.Var(name, extent)


def buffer(name, shape, role="input", dtype=F32) -> Buffer:
    return Buffer(name, tuple(shape), dtype, ix.row_major(tuple(shape)), role)


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


def run_on_cpu(p: Program, inputs: dict[str, torch.Tensor], cache: Path | None = None):
    """Compiles the program, runs it, and returns (codes of the segments, outputs in order)."""
    source = translation_unit(p, CPU, segments(p))
    library = ctypes.CDLL(str(compile_cpp(source, flags=FLAGS, cache_dir=cache)))
    memory = {}
    for x in p.buffers:
        if x.role == "input":
            memory[x.name] = inputs[x.name].contiguous()
        else:
            memory[x.name] = torch.empty(x.shape, dtype=getattr(torch, x.dtype.name))
    codes = []
    for n, segment in enumerate(segments(p)):
        args = [ctypes.c_void_p(memory[x.name].data_ptr()) for x in entry_buffers(p, segment)]
        codes.append(getattr(library, entry_name(n))(*args))
    return codes, [memory[r.buffer] for r in p.returns]


def check_on_cpu(p: Program, inputs: dict[str, torch.Tensor], **tolerance) -> None:
    """The compiled program against the interpreter."""
    codes, actual = run_on_cpu(p, inputs)
    expected = interpret_program(p, inputs).outputs
    assert not any(codes)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, equal_nan=True, **tolerance)
