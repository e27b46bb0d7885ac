"""Row and column reductions of emitted C++: the loops around lanes, keeps and accumulators.

Both anchors have an innermost loop over lanes that the compiler vectorises. For rows the lanes are
neighbouring columns, whose accumulators are combined at the end; for columns they are neighbouring
rows, each with its own result, and the columns are the loops around the lanes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from fusewright.ir.index import Index, Var, add, const, row_major
from fusewright.ir.kernel import Keep, Kernel, Phase

from .common import has_checks, loop_type
from .cpu_folds import (
    Accumulator,
    accumulators,
    combined_lanes,
    declare,
    declare_partial,
    declare_scalar,
    flush_partial,
    flush_to_lanes,
    flush_to_scalar,
    fold_values,
    result,
)
from .cpu_loops import assign_stores, is_parallel, nest, parallel_for, simd_pragma, write_stores
from .cstyle import Env, evaluate, name_value
from .ctext import Text, Writer, c_type

# Lanes of a row reduction: independent accumulators, for any vector width.
ROW_LANES = 32
# A row of at most so many columns is a window; so many neighbouring rows are worth being lanes.
WINDOW = 16
WINDOW_ROWS = 16
# Columns of one block of a column reduction: accumulators stay in the L1 cache.
COLUMN_BLOCK = 1024
# Additions a float32 lane takes before it is flushed into the double total. With 64 the error of
# 2^13 to 2^20 terms stays at eager's, and the flush costs less than a tenth of a cached read.
FLUSH_AFTER = 64
# A row buffer larger than this is allocated on the heap, once per thread.
STACK_BYTES = 64 << 10
# What the values kept for one block of columns may take: half of a small L2 cache.
KEEP_BYTES = 256 << 10

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

    `step == 0` means no blocks: lanes live for the whole phase.
    """

    level: int = 0
    step: int = 0


def blocking(phase: Phase, accs: Sequence[Accumulator], lanes: int) -> Blocking:
    """Blocks of about FLUSH_AFTER additions per lane for float32 sums that are longer than two."""
    volume = FLUSH_AFTER * lanes
    if not any(a.is_float_sum for a in accs) or phase.extent <= 2 * volume:
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


LoopHead = Callable[[Var, Range, Emit], None]


def plain_loop(env: Env, out: Writer) -> LoopHead:
    """A loop over one column variable."""

    def write(v: Var, over: Range, body: Emit) -> None:
        name = env.variables[v]
        kind = loop_type(v, "int64_t")
        with out.block(f"for ({kind} {name} = {over.first}; {name} < {over.last}; {name}++)"):
            body()

    return write


def column_loops(
    cols: Sequence[Var],
    blocks: Blocking,
    env: Env,
    out: Writer,
    loops: Sequence[LoopHead],
    begin: Emit,
    body: Emit,
    flush: Emit,
) -> None:
    """Loops over all columns around `body`, one LoopHead each, with begin/flush around blocks."""

    def inside(k: int) -> None:
        if k == len(cols):
            body()
            return
        v = cols[k]
        if not blocks.step or k != blocks.level:
            loops[k](v, Range("0", str(v.extent)), lambda: inside(k + 1))
            return
        name, kind = env.variables[v], loop_type(v, "int64_t")
        first, last = env.names.fresh(f"{name}_begin"), env.names.fresh(f"{name}_end")
        step = blocks.step
        with out.block(f"for ({kind} {first} = 0; {first} < {v.extent}; {first} += {step})"):
            out.line(f"const {kind} {last} = fw_minimum<{kind}>({first} + {step}, {v.extent});")
            begin()
            loops[k](v, Range(first, last), lambda: inside(k + 1))
            flush()

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
    phase: Phase, accs: Sequence[Accumulator], place: str, env: Env, out: Writer
) -> None:
    """One point of the columns: keeps, then folds (see `fold_values` on `place`), then stores."""
    local = env
    for keep in phase.keeps:
        value = name_value(f"{keep.name}_here", keep.body, local, out)
        out.line(f"{env.refs[keep.name].code} = {value.code};")
        local = local.with_refs({keep.name: value})
    folds = len(phase.folds)
    values = evaluate([x.body for x in (*phase.folds, *phase.stores)], local, out)
    fold_values(accs, values[:folds], place, local, out)
    assign_stores(phase.stores, values[folds:], local, out)


# --------------------------------------------------------------------------------------------- rows


def row_reduce(kernel: Kernel, env: Env, out: Writer) -> None:
    """One row after the other (in parallel); within a row the columns are the vector lanes.

    Short windows have too few columns for that: there neighbouring rows are the lanes.
    """
    if kernel.rows and kernel.rows[-1].extent >= WINDOW_ROWS and is_window(kernel):
        column_reduce(kernel, env, out)
        return
    keeps = [(k, p) for p in kernel.phases for k in p.keeps if p.cols]
    heap = sum(k.body.dtype.bytes * p.extent for k, p in keeps) > STACK_BYTES
    kept = {k.name: Kept(env.names.fresh(k.name), p.cols) for k, p in keeps}
    printer = _Rows(kernel, kept, heap, out)
    parallel = is_parallel(kernel)
    if not heap:
        out.extend([parallel_for(kernel, len(kernel.rows))] if parallel else [])
        nest(kernel.rows, env, out, lambda: printer.row(env))
        return
    clause = " reduction(|:failed)" if has_checks(kernel) else ""
    out.extend([f"#pragma omp parallel{clause}"] if parallel else [])
    with out.block(""):
        for k, p in keeps:
            _heap_array(env.c_type(k.body), kept[k.name].array, p.extent, out)
        collapse = f" collapse({len(kernel.rows)})" if len(kernel.rows) > 1 else ""
        out.extend([f"#pragma omp for schedule(static){collapse}"] if parallel else [])
        nest(kernel.rows, env, out, lambda: printer.row(env))


def is_window(kernel: Kernel) -> bool:
    """Whether every phase has only a few columns."""
    return all(p.extent <= WINDOW for p in kernel.phases)


def _heap_array(kind: str, name: str, count: int, out: Writer) -> None:
    out.line(f"std::unique_ptr<{kind}[]> {name}_memory(new {kind}[{count}]);")
    out.line(f"{kind}* __restrict__ {name} = {name}_memory.get();")


@dataclass(frozen=True, slots=True)
class _Rows:
    """The statements of one row; `kept` arrays are on the heap, allocated before, if `heap`."""

    kernel: Kernel
    kept: Mapping[str, Kept]
    heap: bool
    out: Writer

    def row(self, env: Env) -> None:
        for phase in self.kernel.phases:
            if not self.heap:
                for k in phase.keeps if phase.cols else ():
                    kind, array = env.c_type(k.body), self.kept[k.name].array
                    self.out.line(f"alignas(64) {kind} {array}[{phase.extent}];")
            env = self._phase(phase, env) if phase.cols else self._single(phase, env)

    def _single(self, phase: Phase, env: Env) -> Env:
        """A phase without columns: plain statements."""
        for keep in phase.keeps:
            env = env.with_refs({keep.name: name_value(keep.name, keep.body, env, self.out)})
        refs = {}
        for f in phase.folds:
            if f.position is None:
                refs[f.name] = name_value(f.name, f.body, env, self.out)
            else:
                refs[f.name] = env.index.text(f.position)
        env = env.with_refs(refs)
        write_stores(phase.stores, env, self.out)
        return env

    def _phase(self, phase: Phase, env: Env) -> Env:
        """One phase; returns the environment in which its results are known."""
        accs = accumulators(phase, env)
        if not any(a.is_arg for a in accs):
            return self._folded_loop(phase, accs, env)
        lanes = ROW_LANES
        blocks = blocking(phase, accs, lanes)
        totals = [a for a in accs if blocks.step or a.is_arg]
        for acc in totals:
            declare_scalar(acc, self.out)
        here = env.with_refs(self._keep_refs(env))
        loops: list[LoopHead] = [plain_loop(env, self.out)] * (len(phase.cols) - 1)
        loops.append(self._lane_loop(lanes, env))
        column_loops(
            phase.cols,
            blocks,
            env,
            self.out,
            loops,
            begin=lambda: declare_lanes(accs, lanes, self.out),
            body=lambda: write_point(phase, accs, "[lane]", here, self.out),
            flush=lambda: self._flush(totals, lanes),
        )
        return env.with_refs({a.fold.name: self._finish(a, a in totals) for a in accs})

    def _folded_loop(self, phase: Phase, accs: Sequence[Accumulator], env: Env) -> Env:
        """Loops that the compiler folds in vectors, as an OpenMP reduction allows it to."""
        blocks = blocking(phase, accs, ROW_LANES)
        for acc in accs if blocks.step else ():
            declare_scalar(acc, self.out)
        here = env.with_refs(self._keep_refs(env))
        clauses = "".join(f" {a.clause}" for a in accs)
        loops: list[LoopHead] = [plain_loop(env, self.out)] * (len(phase.cols) - 1)
        column_loops(
            phase.cols,
            blocks,
            env,
            self.out,
            [*loops, self._simd_loop(env, clauses)],
            begin=lambda: self._begin_partials(accs),
            body=lambda: write_point(phase, accs, "", here, self.out),
            flush=lambda: self._flush_partials(accs if blocks.step else ()),
        )
        blocked = bool(blocks.step)
        refs = {a.fold.name: self._finish(a, blocked, a.partial) for a in accs}
        return env.with_refs(refs)

    def _begin_partials(self, accs: Sequence[Accumulator]) -> None:
        for acc in accs:
            declare_partial(acc, self.out)

    def _flush_partials(self, accs: Sequence[Accumulator]) -> None:
        for acc in accs:
            flush_partial(acc, self.out)

    def _flush(self, accs: Sequence[Accumulator], lanes: int) -> None:
        for acc in accs:
            flush_to_scalar(acc, lanes, self.out)

    def _finish(self, acc: Accumulator, has_total: bool, partial: str = "") -> Text:
        """Names the result of a fold in its own type."""
        if acc.is_arg:
            return Text(f"{acc.total}_at")
        if has_total:
            value = result(acc, Text(acc.total), acc.total_dtype)
        else:
            value = result(acc, Text(partial or combined_lanes(acc)), acc.dtype)
        self.out.line(f"const {c_type(acc.fold.dtype, 'cpu')} {acc.name} = {value.code};")
        return Text(acc.name)

    def _keep_refs(self, env: Env) -> dict[str, Text]:
        return {
            name: Text(f"{k.array}[{env.index.text(flat_column(k.cols)).code}]")
            for name, k in self.kept.items()
        }

    def _simd_loop(self, env: Env, clauses: str) -> LoopHead:
        inner = plain_loop(env, self.out)

        def write(v: Var, over: Range, body: Emit) -> None:
            self.out.line(f"{simd_pragma(self.kernel)}{clauses}")
            inner(v, over, body)

        return write

    def _lane_loop(self, lanes: int, env: Env) -> LoopHead:
        """`for (base += lanes) for (lane < lanes)` over the innermost columns."""
        out = self.out

        def write(v: Var, over: Range, body: Emit) -> None:
            name, kind = env.variables[v], loop_type(v, "int64_t")
            base = env.names.fresh(f"{name}_base")
            head = f"for ({kind} {base} = {over.first}; {base} < {over.last}; {base} += {lanes})"
            with out.block(head):
                width = str(lanes)
                if v.extent % lanes:
                    width = "width"
                    left = f"{over.last} - {base}"
                    out.line(f"const int width = fw_minimum<{kind}>({lanes}, {left});")
                out.line(simd_pragma(self.kernel))
                lane = out.block(f"for (int lane = 0; lane < {width}; lane++)")
                with lane, out.declared(name, f"const {kind} {name} = {base} + lane;"):
                    body()

        return write


# ------------------------------------------------------------------------------------------ columns


def column_block(kernel: Kernel) -> int:
    """Lanes of a column reduction: as many as the cache and the number of tasks allow."""
    *outer, inner = kernel.rows
    block = COLUMN_BLOCK
    kept = sum(k.body.dtype.bytes * p.extent for p in kernel.phases for k in p.keeps)
    while block > 64 and kept * block > KEEP_BYTES:
        block //= 2
    tasks = prod(v.extent for v in outer)
    while block > 64 and tasks * -(-inner.extent // block) < 8:
        block //= 2
    return min(block, -(-inner.extent // 16) * 16)


def column_reduce(kernel: Kernel, env: Env, out: Writer) -> None:
    """Blocks of the innermost row axis (in parallel); the columns are loops around the lanes."""
    if not kernel.rows:
        row_reduce(kernel, env, out)
        return
    *outer, inner = kernel.rows
    block = column_block(kernel)
    name, kind = env.variables[inner], loop_type(inner, "int64_t")
    base = env.names.fresh(f"{name}_base")

    def blocks() -> None:
        with out.block(f"for ({kind} {base} = 0; {base} < {inner.extent}; {base} += {block})"):
            width = str(block)
            if inner.extent % block:
                width = "width"
                left = f"{inner.extent} - {base}"
                out.line(f"const int width = fw_minimum<{kind}>({block}, {left});")
            here = f"const {kind} {name} = {base} + lane;"
            printer = _Columns(kernel, name, here, block, width, out)
            printer.block_of_rows(env)

    if is_parallel(kernel):
        out.line(parallel_for(kernel, len(outer) + 1))
    nest(outer, env, out, blocks)


@dataclass(frozen=True, slots=True)
class _Columns:
    """One block of rows: `block` lanes of which `width` are live.

    `row` names the row of a lane and `here` declares it.
    """

    kernel: Kernel
    row: str
    here: str
    block: int
    width: str
    out: Writer

    def block_of_rows(self, env: Env) -> None:
        kept: dict[str, Kept] = {}
        for phase in self.kernel.phases:
            for k in phase.keeps:
                kept[k.name] = Kept(env.names.fresh(k.name), phase.cols)
                self._declare_keep(k, kept[k.name].array, phase.extent, env)
            env = self._phase(phase, kept, env)

    def _declare_keep(self, keep: Keep, name: str, extent: int, env: Env) -> None:
        kind, count = env.c_type(keep.body), max(extent, 1) * self.block
        if count * keep.body.dtype.bytes <= STACK_BYTES:
            self.out.line(f"alignas(64) {kind} {name}[{count}];")
        else:
            _heap_array(kind, name, count, self.out)

    def _phase(self, phase: Phase, kept: Mapping[str, Kept], env: Env) -> Env:
        accs = accumulators(phase, env)
        blocks = blocking(phase, accs, 1)
        here = env.with_refs(self._keep_refs(kept, phase, env))
        for acc in accs if blocks.step else ():
            declare(acc, acc.total, self.block, acc.total_dtype, self.out)
        column_loops(
            phase.cols,
            blocks,
            env,
            self.out,
            [plain_loop(env, self.out)] * len(phase.cols),
            begin=lambda: declare_lanes(accs, self.block, self.out),
            body=lambda: self._lane_loop(phase, accs, here),
            flush=lambda: self._flush(accs) if blocks.step else None,
        )
        return env.with_refs({a.fold.name: self._result(a, bool(blocks.step)) for a in accs})

    def _flush(self, accs: Sequence[Accumulator]) -> None:
        for acc in accs:
            flush_to_lanes(acc, self.width, self.out)

    def _keep_refs(self, kept: Mapping[str, Kept], phase: Phase, env: Env) -> dict[str, Text]:
        """Values kept over this phase's columns (or over none), at the current point."""
        refs = {}
        for name, k in kept.items():
            if k.cols and k.cols != phase.cols:
                continue
            at = env.index.text(flat_column(k.cols) * self.block).code if k.cols else ""
            refs[name] = Text(f"{k.array}[{at} + lane]" if at else f"{k.array}[lane]")
        return refs

    def _result(self, acc: Accumulator, blocked: bool) -> Text:
        array = acc.total if blocked else acc.lanes
        if acc.is_arg:
            return Text(f"{array}_at[lane]")
        dtype = acc.total_dtype if blocked else acc.dtype
        return result(acc, Text(f"{array}[lane]"), dtype)

    def _lane_loop(self, phase: Phase, accs: Sequence[Accumulator], env: Env) -> None:
        self.out.line(simd_pragma(self.kernel))
        lane = self.out.block(f"for (int lane = 0; lane < {self.width}; lane++)")
        with lane, self.out.declared(self.row, self.here):
            write_point(phase, accs, "[lane]", env, self.out)

