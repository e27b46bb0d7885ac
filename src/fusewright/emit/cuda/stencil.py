"""Stencils of emitted CUDA: a thread has some windows below one another, and reads what they share
once.

Threads lie along the innermost row, where they read neighbouring places together; what windows
share across it comes from the first cache. A thread takes the places of one column of taps at a
time into registers, and adds each to every window that it is part of. Where windows share nothing
downwards (sequences), several of them still keep several loads in flight.
"""

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import replace
from math import prod

from fusewright.emit.cstyle import Env, evaluate, name_value
from fusewright.emit.ctext import Text, Writer
from fusewright.errors import IRError
from fusewright.ir.body import Expr, Guarded, Load, Ref, loads, walk
from fusewright.ir.index import Var, variables
from fusewright.ir.kernel import Kernel
from fusewright.ir.phases import without_keeps
from fusewright.ir.sliding import expressions
from fusewright.ir.stencil import Stencil, stencil

from .access import VectorAxis, guard, nothing, unrolled, write_lanes
from .folds import declare, named, registers, update
from .loops import Launch, block_position, index_type, positions


def stencil_kernel(kernel: Kernel, env: Env, out: Writer) -> Launch:
    """Threads of `items` windows each, numbered along the rows; the last ones overlap."""
    kernel = replace(kernel, phases=without_keeps(kernel.phases))
    found = stencil(kernel.rows, kernel.phases)
    if found is None:
        raise IRError(f"{kernel.name}: it does more than fold short windows, or has one row axis")
    row, items = found.row, kernel.tile.items
    if not 1 <= items <= row.extent:
        raise IRError(f"{kernel.name}: {items} windows in {row.extent} rows")
    threads = kernel.tile.threads
    group = Var(f"{row.name}_group", -(-row.extent // items))
    new = (group,) if found.at is row else (group, found.at)
    env = env.with_variables({v: env.names.fresh(v.name) for v in new})
    units = tuple(group if v is row else v for v in kernel.rows)
    count = prod(v.extent for v in units)
    flat = env.names.fresh("thread")
    out.line(f"const {index_type(count)} {flat} = {block_position(threads, count)} + threadIdx.x;")
    inside = guard(f"{flat} < {count}" if count % threads else "", out)
    with inside, positions(units, flat, env, out):
        _Windows(kernel, found, group, env, out).write()
    return Launch(-(-count // threads), threads)


class _Windows:
    """Writes what one thread does."""

    def __init__(
        self, kernel: Kernel, found: Stencil, group: Var, env: Env, out: Writer
    ) -> None:
        self.kernel, self.found, self.env, self.out = kernel, found, env, out
        self.items, self.row = kernel.tile.items, env.variables[found.row]
        self.group = env.variables[group]
        self.first = env.names.fresh(f"{found.row.name}_first")
        self.phase = replace(kernel.phases[0], folds=found.folds)
        self.accs = registers(self.phase, self.items, 1, env)
        self.columns = {
            name: env.names.fresh(f"{env.pointers[loads(value)[0].buffer]}_column")
            for name, value in found.values
        }

    def write(self) -> None:
        extent, out = self.found.row.extent, self.out
        start, last = _times(self.group, self.items), extent - self.items
        clamped = f"{start} < {last} ? {start} : {last}" if self.ragged else start
        with out.declared(self.first, f"const {index_type(extent)} {self.first} = {clamped};"):
            for acc in self.accs:
                declare(acc, out)
            values = [value for _, value in self.found.values]
            self._name_unmoved([*values, *(f.body for f in self.found.folds)])
            with self._taps():
                self._places()
                self._fold()
            self._results()

    @property
    def ragged(self) -> bool:
        """Whether the last windows of a column of them are also another thread's."""
        return self.found.row.extent % self.items != 0

    def _name_unmoved(self, bodies: Sequence[Expr]) -> None:
        """Computes once what is the same for all of the thread's places, taps and windows."""
        moving = {self.found.row, self.found.at, *self.kernel.phases[0].cols}
        for e in unmoved(bodies, moving):
            pointer = self.env.pointers[loads(e)[0].buffer]
            kind = "value" if isinstance(e, Load) else "term"
            value = name_value(f"{pointer}_{kind}", e, self.env, self.out)
            self.env = self.env.with_loaded({e: value})

    @contextmanager
    def _taps(self) -> Iterator[None]:
        taps, env = self.found.taps, self.env
        name = env.variables[taps[0]] if len(taps) == 1 else env.names.fresh("tap")
        loop = unrolled(name, prod(v.extent for v in taps), self.out)
        with loop, positions(taps, name, env, self.out):
            yield

    def _places(self) -> None:
        """The values at the places that the thread's windows reach over, at one tap."""
        found, out, at = self.found, self.out, self.env.variables[self.found.at]
        depth = found.depth(self.items)
        for name, value in found.values:
            out.line(f"{self.env.c_type(value)} {self.columns[name]}[{depth}];")
        where = _times(self.first, found.stride) + (" + place" if depth > 1 else "")
        declaration = f"const {index_type(found.at.extent)} {at} = {where};"
        with unrolled("place", depth, out), out.declared(at, declaration):
            values = evaluate([value for _, value in found.values], self.env, out)
            for column, value in zip(self.columns.values(), values, strict=True):
                out.line(f"{column}[{'place' if depth > 1 else '0'}] = {value.code};")

    def _fold(self) -> None:
        slide, out = self.found.slide, self.out
        item = "item" if self.items > 1 else "0"
        if slide is None:
            with unrolled("item", self.items, out):
                self._update(item)
            return
        tap = self.env.variables[slide.col]
        item = _times(item, slide.stride) + " + " if self.items > 1 else ""
        with unrolled(tap, slide.col.extent, out), unrolled("item", self.items, out):
            self._update(item + _times(tap, slide.dilation))

    def _update(self, place: str) -> None:
        refs = {name: Text(f"{column}[{place}]") for name, column in self.columns.items()}
        update(self.phase, self.accs, self.env.with_refs(refs), self.out)

    def _results(self) -> None:
        stores = [s for p in self.kernel.phases[1:] for s in p.stores]
        self._name_unmoved([s.body for s in stores])
        out, env, row = self.out, self.env, self.row
        where = f"{self.first} + item" if self.items > 1 else self.first
        own = f"{row} >= {_times(self.group, self.items)}" if self.ragged else ""
        declaration = f"const {index_type(self.found.row.extent)} {row} = {where};"
        with unrolled("item", self.items, out), out.declared(row, declaration), guard(own, out):
            refs = {acc.fold.name: named(acc, acc.slot, env, out) for acc in self.accs}
            write_lanes([], nothing, stores, VectorAxis(None, 1), env.with_refs(refs), out)


def unmoved(bodies: Sequence[Expr], moving: AbstractSet[Var]) -> list[Expr]:
    """The largest parts of the bodies that have loads and know none of the variables.

    A part that a guard around it knows something about stays there: its loads may need the guard.
    """
    found: dict[Expr, None] = {}

    def visit(e: Expr, guarding: frozenset[Var]) -> None:
        known = set(variables(*expressions((e,))))
        fixed = not known & moving and not any(isinstance(x, Ref) for x in walk(e))
        if fixed and loads(e) and not known & guarding:
            found[e] = None
            return
        if isinstance(e, Guarded):
            guarding |= set(variables(*(c.x for c in e.conds)))
        for x in e.operands:
            visit(x, guarding)

    for body in bodies:
        visit(body, frozenset())
    return list(found)


def _times(name: str, factor: int) -> str:
    return name if factor == 1 else f"{name} * {factor}"
