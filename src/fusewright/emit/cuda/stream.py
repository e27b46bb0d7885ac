"""Column reductions of emitted CUDA that stream whole planes through shared memory.

Rows of a length that no vector access divides still lie one after the other: a few of them are a
multiple of 16 bytes. The bulk copy engine (PTX `cp.async.bulk`, Hopper) brings such chunks to
shared memory, `stages` of them in flight, and each thread folds its columns from there.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import prod

from fusewright.emit.cstyle import Env, evaluate
from fusewright.emit.ctext import Text, Writer, c_type
from fusewright.errors import IRError
from fusewright.ir.dtypes import FLOAT32
from fusewright.ir.index import const, substitute
from fusewright.ir.kernel import Kernel, streamed_load

from .access import address, guard, unrolled
from .folds import Registers, declare, fold_columns, registers, update
from .loops import Launch, index_type, positions

# Stages start at this alignment in shared memory.
STAGE_ALIGNMENT = 128
# Chunks whose float sums are gathered before they are added to the total: rounding errors then grow
# with both counts apart (blocked summation; N. Higham, "The accuracy of floating point summation",
# SIAM J. Sci. Comput. 14(4), 1993).
BLOCK_CHUNKS = 32


def column_stream(kernel: Kernel, env: Env, out: Writer) -> Launch:
    """One block per plane; thread t owns the rows t, t + threads, ... of the innermost axis."""
    load = streamed_load(kernel.rows, kernel.phases)
    if load is None:
        raise IRError(f"{kernel.name}: column_stream needs one load of whole planes")
    tile, phase = kernel.tile, kernel.phases[0]
    *outer, inner = kernel.rows
    (k,) = phase.cols
    if k.extent % tile.items:
        raise IRError(f"{kernel.name}: {k.extent} columns in chunks of {tile.items}")
    chunk_bytes = tile.items * inner.extent * load.dtype.bytes
    element, pointer = c_type(load.dtype, "cuda"), env.pointers[load.buffer]
    flat = env.variables[outer[0]] if len(outer) == 1 else env.names.fresh("plane")
    if outer:
        out.line(f"const int {flat} = blockIdx.x;")
    with positions(outer, flat, env, out):
        start = env.index.text(substitute(load.offset, {k: const(0), inner: const(0)}))
        stream, chunk = env.names.fresh(f"{pointer}_stream"), env.names.fresh("part")
        rows = env.names.fresh(f"{pointer}_rows")
        out.line(
            f"fw_stream<{tile.stages}, {chunk_bytes}> {stream}"
            f"({address(pointer, start)}, {k.extent // tile.items});"
        )
        width = -(-inner.extent // tile.threads)
        accs = registers(phase, tile.items, width, env)
        totals = _totals(accs, k.extent // tile.items, env)
        for acc in (*accs, *totals.values()):
            declare(acc, out)
        with out.block(f"for (int {chunk} = 0; {chunk} < {k.extent // tile.items}; {chunk}++)"):
            out.line(f"const {element}* {rows} = {stream}.wait<{element}>({chunk});")
            here = env.with_loaded({load: Text(f"{rows}[{_element(kernel, env)}]")})
            _fold_chunk(kernel, chunk, width, accs, here, out)
            out.line(f"{stream}.release({chunk});")
            if totals:
                with out.block(f"if ({chunk} % {BLOCK_CHUNKS} == {BLOCK_CHUNKS - 1})"):
                    _add(totals, out, restart=True)
        if totals:
            _add({total: acc for acc, total in totals.items()}, out)
        refs = fold_columns(accs, 1, tile.threads, env, out)
        _results(kernel, width, env.with_refs(refs), out)
    stage = -(-chunk_bytes // STAGE_ALIGNMENT) * STAGE_ALIGNMENT
    return Launch(prod(v.extent for v in outer), tile.threads, tile.stages * stage)


def _totals(
    accs: Sequence[Registers], chunks: int, env: Env
) -> dict[Registers, Registers]:
    """Second registers for the float sums that are long enough to need them."""
    if chunks < 2 * BLOCK_CHUNKS:
        return {}
    sums = [a for a in accs if a.fold.kind == "sum" and a.dtype == FLOAT32]
    return {a: replace(a, name=env.names.fresh(f"{a.fold.name}_total")) for a in sums}


def _add(pairs: Mapping[Registers, Registers], out: Writer, restart: bool = False) -> None:
    """Adds each first of the pairs to the second, and starts it again where asked to."""
    first = next(iter(pairs))
    with unrolled("item", first.items, out), unrolled("v", first.width, out):
        for source, target in pairs.items():
            out.line(f"{target.slot} += {source.slot};")
            if restart:
                out.line(f"{source.slot} = {source.identity};")


def _element(kernel: Kernel, env: Env) -> str:
    """The place of the current column's element of the current row in its chunk."""
    inner = kernel.rows[-1]
    row = env.variables[inner]
    return f"item * {inner.extent} + {row}" if kernel.tile.items > 1 else row


@contextmanager
def _own_rows(kernel: Kernel, width: int, env: Env, out: Writer) -> Iterator[None]:
    """The loop over a thread's rows: the row is declared, and guarded by the end of the axis."""
    inner, threads = kernel.rows[-1], kernel.tile.threads
    name, kind = env.variables[inner], index_type(inner.extent)
    where = "threadIdx.x" if width == 1 else f"v * {threads} + threadIdx.x"
    bound = f"{name} < {inner.extent}" if inner.extent % threads else ""
    declaration = f"const {kind} {name} = {where};"
    with unrolled("v", width, out), out.declared(name, declaration), guard(bound, out):
        yield


def _fold_chunk(
    kernel: Kernel, chunk: str, width: int, accs: Sequence[Registers], env: Env, out: Writer
) -> None:
    """Folds the columns of one chunk; `env` knows the streamed load as an element of the chunk."""
    phase, items = kernel.phases[0], kernel.tile.items
    (k,) = phase.cols
    column = env.variables[k]
    number = f"{chunk} * {items} + item" if items > 1 else chunk
    declaration = f"const {index_type(k.extent)} {column} = {number};"
    inside = out.declared(column, declaration)
    with _own_rows(kernel, width, env, out), unrolled("item", items, out), inside:
        update(phase, accs, env, out)


def _results(kernel: Kernel, width: int, env: Env, out: Writer) -> None:
    stores = [s for p in kernel.phases[1:] for s in p.stores]
    with _own_rows(kernel, width, env, out):
        values = evaluate([s.body for s in stores], env, out)
        for s, value in zip(stores, values, strict=True):
            at = env.index.text(s.offset).code
            out.line(f"{env.pointers[s.buffer]}[{at}] = {value.code};")
