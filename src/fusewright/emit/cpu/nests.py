"""Loops over the columns of reductions in C++: where lanes live, are flushed, and kept values are.

Shared by `rows`, whose innermost loop runs over columns, and `columns`, whose innermost
loop runs over rows.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from math import prod

from fusewright.emit.cstyle import Env, evaluate, name_value
from fusewright.emit.ctext import Writer
from fusewright.ir.body import Apply, Expr, Guarded, Ref, substitution, walk
from fusewright.ir.index import Index, Var, add, const
from fusewright.ir.kernel import Phase
from fusewright.ir.offsets import row_major

from .folds import (
    Accumulator,
    declare,
    fold_values,
)
from .loops import assign_stores, is_worth_a_name, loop_type
from .scans import Carry, write_scans

# Additions a float32 lane takes before it is flushed into the double total. With 64 the error of
# 2^13 to 2^20 terms stays at eager's, and the flush costs less than a tenth of a cached read.
FLUSH_AFTER = 64
# A row buffer larger than this is allocated on the heap, once per thread.
STACK_BYTES = 64 << 10

Emit = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Kept:
    """The array that holds a kept value, and the columns its points are numbered by."""

    array: str
    cols: tuple[Var, ...]


def flat_column(cols: Sequence[Var]) -> Index:
    """The row-major number of a point of the columns."""
    strides = row_major(tuple(v.extent for v in cols))
    return add(const(0), *(v * s for v, s in zip(cols, strides, strict=True)))


# ------------------------------------------------------------------------------- loops over columns


@dataclass(frozen=True, slots=True)
class Blocking:
    """Where lanes are flushed: the loop over column `level` runs in blocks of `step` columns.

    `step == 0` means no blocks: lanes live for the whole phase. Columns from `end` on (0: none) are
    a block of their own.
    """

    level: int = 0
    step: int = 0
    end: int = 0


def blocking(phase: Phase, accs: Sequence[Accumulator], lanes: int) -> Blocking:
    """Blocks of about FLUSH_AFTER additions per lane for float32 sums that are longer."""
    volume = FLUSH_AFTER * lanes
    if not any(a.is_float_sum for a in accs) or phase.extent <= volume:
        return Blocking()
    extents = [v.extent for v in phase.cols]
    level = next(
        (k for k in range(len(extents) - 1, 0, -1) if prod(extents[k:]) >= volume), 0
    )
    return Blocking(level, max(1, volume // prod(extents[level + 1 :])))


@dataclass(frozen=True, slots=True)
class Range:
    """First and past-the-last value of a loop, as C text."""

    first: str
    last: str


# Writes the statements of one point; the text is the condition under which the point counts, ""
# where it always does.
Point = Callable[[str], None]
LoopHead = Callable[[Var, Range, Point], None]


def plain_loop(env: Env, out: Writer, reverse: bool = False) -> LoopHead:
    """A loop over one column variable, on demand from the last column to the first."""

    def write(v: Var, over: Range, body: Point) -> None:
        name, kind = env.variables[v], loop_type(v)
        step = env.names.fresh(f"{name}_back") if reverse else name
        head = f"for ({kind} {step} = {over.first}; {step} < {over.last}; {step}++)"
        from_end = f"const {kind} {name} = {v.extent - 1} - {step};"
        with out.block(head), out.declared(name, from_end) if reverse else nullcontext():
            body("")

    return write


def column_loops(
    cols: Sequence[Var],
    blocks: Blocking,
    env: Env,
    out: Writer,
    loops: Sequence[LoopHead],
    begin: Emit,
    body: Point,
    flush: Emit,
) -> None:
    """Loops over all columns around `body`, one LoopHead each, with begin/flush around blocks."""

    def inside(k: int, counted: str = "") -> None:
        if k == len(cols):
            body(counted)
            return
        v = cols[k]
        if not blocks.step or k != blocks.level:
            loops[k](v, Range("0", str(v.extent)), lambda counted: inside(k + 1, counted))
            return
        name, kind = env.variables[v], loop_type(v)
        first, last = env.names.fresh(f"{name}_begin"), env.names.fresh(f"{name}_end")
        step, end = blocks.step, blocks.end or v.extent

        def block(over: Range) -> None:
            begin()
            loops[k](v, over, lambda counted: inside(k + 1, counted))
            flush()

        with out.block(f"for ({kind} {first} = 0; {first} < {end}; {first} += {step})"):
            out.line(f"const {kind} {last} = fw_minimum<{kind}>({first} + {step}, {end});")
            block(Range(first, last))
        if end < v.extent:
            block(Range(str(end), str(v.extent)))

    if blocks.step:
        inside(0)
    else:
        begin()
        inside(0)
        flush()


def declare_lanes(accs: Sequence[Accumulator], lanes: int, out: Writer) -> None:
    """The lane arrays of all folds, filled with their identities."""
    for acc in accs:
        declare(acc, acc.lanes, lanes, acc.dtype, out)


def write_point(
    phase: Phase,
    accs: Sequence[Accumulator],
    place: str,
    env: Env,
    out: Writer,
    carries: Sequence[Carry] = (),
    counted: str = "",
) -> None:
    """One point of the columns: keeps, scans, folds (see `fold_values` on `place` and `counted`),
    stores."""
    local = env
    for keep in phase.keeps:
        value = name_value(f"{keep.name}_here", keep.body, local, out)
        out.line(f"{env.refs[keep.name].code} = {value.code};")
        local = local.with_refs({keep.name: value})
    local = write_scans(carries, place, local, out)
    folds = len(phase.folds)
    values = evaluate([x.body for x in (*phase.folds, *phase.stores)], local, out)
    fold_values(accs, values[:folds], place, local, out, counted)
    assign_stores(phase.stores, values[folds:], local, out)


def row_values(phase: Phase, names: Collection[str]) -> dict[Expr, str]:
    """What is the same for all columns and worth a name before their loop: compilers do not move
    what has branches, such as a logarithm. `names` are the kept values with a point per column."""
    at_first = substitution({v: const(0) for v in phase.cols})
    names = {*names, *(s.name for s in phase.scans)}
    moving: set[Expr] = set()
    for e in walk(*phase.bodies):
        named = isinstance(e, Ref) and e.name in names
        if named or any(o in moving for o in e.operands) or at_first(e) != e:
            moving.add(e)
    stack, found, seen = list(reversed(phase.bodies)) if phase.cols else [], {}, set[Expr]()
    while stack:
        e = stack.pop()
        if e in seen:
            continue
        seen.add(e)
        if e in moving:
            stack.extend(() if isinstance(e, Guarded) else reversed(e.operands))
        elif is_worth_a_name(e):
            found[e] = f"{e.op if isinstance(e, Apply) else type(e).__name__.lower()}_1"
    return found


def heap_array(kind: str, name: str, count: int, out: Writer) -> None:
    """A buffer too large for the stack: `name` points to it, `name_memory` owns it."""
    out.line(f"std::unique_ptr<{kind}[]> {name}_memory(new {kind}[{count}]);")
    out.line(f"{kind}* __restrict__ {name} = {name}_memory.get();")
