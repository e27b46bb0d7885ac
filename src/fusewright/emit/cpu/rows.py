"""Row reductions of emitted C++: the compiler folds vectors of neighbouring columns.

Loops are OpenMP reductions, which allow another order of additions; argmax and argmin have arrays
with one element per lane instead, combined at the end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fusewright.emit.common import has_checks
from fusewright.emit.cstyle import Env, name_value
from fusewright.emit.ctext import Text, Writer, c_type, memory_type
from fusewright.ir.index import Var
from fusewright.ir.kernel import Kernel, Phase

from .folds import (
    Accumulator,
    accumulators,
    combined_lanes,
    declare_partial,
    declare_scalar,
    flush_partial,
    flush_to_scalar,
    reduction_clauses,
    result,
    settle_partial,
)
from .loops import (
    is_parallel,
    loop_type,
    nest,
    parallel_for,
    simd_pragma,
    with_fixed,
    write_stores,
)
from .nests import (
    STACK_BYTES,
    Emit,
    Kept,
    LoopHead,
    Point,
    Range,
    blocking,
    column_loops,
    declare_lanes,
    flat_column,
    heap_array,
    plain_loop,
    row_values,
    write_point,
)
from .scans import declare_carries, has_prefix_loop, prefix_loop
from .turned import is_costly

# Lanes of a row reduction: independent accumulators, for any vector width.
ROW_LANES = 32
# Lanes that a loop is counted to have when the compiler folds it. It may find no vectors for the
# body: 512 float32 additions one after the other keep the error of a mean near 3e-7.
FOLDED_LANES = 8
# Columns that compilers take at once. A row that is not made of whole vectors ends in one that
# overlaps the one before it: a rest of single columns takes longer than the whole of a short row.
VECTOR = 16
# Columns up to which the loop over that last vector counts.
SHORT_ROW = 512


def row_reduce(kernel: Kernel, env: Env, out: Writer) -> None:
    """One row after the other (in parallel); within a row the columns are the vector lanes."""
    keeps = [(k, p) for p in kernel.phases for k in p.keeps if p.cols]
    heap = sum(k.body.dtype.bytes * p.extent for k, p in keeps) > STACK_BYTES
    kept = {k.name: Kept(env.names.fresh(k.name), p.cols) for k, p in keeps}
    printer = _Rows(kernel, kept, heap, out)
    parallel = is_parallel(kernel)
    if not heap:
        out.extend([parallel_for(kernel, len(kernel.rows))] if parallel else [])
        nest(kernel.rows, env, out, lambda: printer.row(env))
        return
    clause = " reduction(| : failed)" if has_checks(kernel) else ""
    out.extend([f"#pragma omp parallel{clause}"] if parallel else [])
    with out.block(""):
        for k, p in keeps:
            heap_array(memory_type(k.body.dtype, "cpu"), kept[k.name].array, p.extent, out)
        collapse = f" collapse({len(kernel.rows)})" if len(kernel.rows) > 1 else ""
        out.extend([f"#pragma omp for schedule(static){collapse}"] if parallel else [])
        nest(kernel.rows, env, out, lambda: printer.row(env))


@dataclass(frozen=True, slots=True)
class _Rows:
    """The statements of one row; `kept` arrays are on the heap, allocated before, if `heap`."""

    kernel: Kernel
    kept: Mapping[str, Kept]
    heap: bool
    out: Writer

    def row(self, env: Env) -> None:
        cols = [v for p in self.kernel.phases for v in p.cols]
        env = with_fixed(self.kernel.bodies, cols, env, self.out)
        for phase in self.kernel.phases:
            if not self.heap:
                for k in phase.keeps if phase.cols else ():
                    kind = memory_type(k.body.dtype, "cpu")
                    array = self.kept[k.name].array
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
        lane_by_lane = any(a.is_arg for a in accs) or self._has_costly_rest(phase, accs)
        if not phase.scans and not lane_by_lane:
            return self._folded_loop(phase, accs, env)
        if phase.scans and has_prefix_loop(phase) and not has_checks(self.kernel):
            scans = declare_carries(phase, 0, env, self.out)
            prefix_loop(phase, scans, self._with_row_values(phase, env), self.out)
            return env
        lanes = 1 if phase.scans else _lanes(phase.cols[-1].extent)
        blocks = blocking(phase, accs, lanes)
        totals = [a for a in accs if blocks.step or a.is_arg]
        for acc in totals:
            declare_scalar(acc, self.out)
        scans = declare_carries(phase, 0, env, self.out)
        here = self._with_row_values(phase, env)
        loops: list[LoopHead] = [plain_loop(env, self.out)] * (len(phase.cols) - 1)
        one_way = plain_loop(env, self.out, phase.reverse)
        loops.append(one_way if scans else self._lane_loop(lanes, env))
        place = "[0]" if scans else "[lane]"
        column_loops(
            phase.cols,
            blocks,
            env,
            self.out,
            loops,
            begin=lambda: declare_lanes(accs, lanes, self.out),
            body=lambda counted: write_point(
                phase, accs, place, here, self.out, scans, counted
            ),
            flush=lambda: self._flush(totals),
        )
        return env.with_refs({a.fold.name: self._finish(a, a in totals) for a in accs})

    def _folded_loop(self, phase: Phase, accs: Sequence[Accumulator], env: Env) -> Env:
        """Loops that the compiler folds in vectors, as an OpenMP reduction allows it to."""
        blocks = blocking(phase, accs, FOLDED_LANES)
        for acc in accs if blocks.step else ():
            declare_scalar(acc, self.out)
        here = self._with_row_values(phase, env)
        main = self._whole_vectors(phase.cols[-1])
        if blocks.level == len(phase.cols) - 1:
            blocks = replace(blocks, end=main)
        accs = [
            replace(a, blocked=bool(blocks.step), flagged=main > 0 and a.is_float_extremum)
            for a in accs
        ]
        loops: list[LoopHead] = [plain_loop(env, self.out)] * (len(phase.cols) - 1)
        column_loops(
            phase.cols,
            blocks,
            env,
            self.out,
            [*loops, self._simd_loop(env, accs, main)],
            begin=lambda: self._begin_partials(accs),
            body=lambda counted: write_point(phase, accs, "", here, self.out, (), counted),
            flush=lambda: self._flush_partials(accs, bool(blocks.step)),
        )
        refs = {a.fold.name: self._finish_partial(a) for a in accs}
        return env.with_refs(refs)

    def _has_costly_rest(self, phase: Phase, accs: Sequence[Accumulator]) -> bool:
        """Whether a loop of its own for the last columns, whose lanes the compiler would combine
        one after the other, takes longer than keeping all lanes in memory."""
        extent = phase.cols[-1].extent
        rest = extent % VECTOR and self._whole_vectors(phase.cols[-1])
        return bool(rest) and extent <= SHORT_ROW and is_costly(phase) and any(
            a.is_float_sum for a in accs
        )

    def _with_row_values(self, phase: Phase, env: Env) -> Env:
        env = env.with_refs(self._keep_refs(env))
        found = [x for x in row_values(phase, self.kept).items() if x[0] not in env.loaded]
        return env.with_loaded({e: name_value(name, e, env, self.out) for e, name in found})

    def _finish_partial(self, acc: Accumulator) -> Text:
        """The result of a fold: its variable, or what the total or another type makes of it."""
        if acc.partial == acc.name:
            return Text(acc.name)
        total, dtype = (acc.total, acc.total_dtype) if acc.blocked else (acc.partial, acc.dtype)
        value = result(acc, Text(total), dtype)
        self.out.line(f"const {c_type(acc.fold.dtype, 'cpu')} {acc.name} = {value.code};")
        return Text(acc.name)

    def _begin_partials(self, accs: Sequence[Accumulator]) -> None:
        for acc in accs:
            declare_partial(acc, self.out)

    def _flush_partials(self, accs: Sequence[Accumulator], blocked: bool) -> None:
        for acc in accs:
            settle_partial(acc, self.out)
            if blocked:
                flush_partial(acc, self.out)

    def _flush(self, accs: Sequence[Accumulator]) -> None:
        for acc in accs:
            flush_to_scalar(acc, self.out)

    def _finish(self, acc: Accumulator, has_total: bool) -> Text:
        """Names the result of a fold in its own type."""
        if acc.is_arg:
            return Text(f"{acc.total}_at")
        if has_total:
            value = result(acc, Text(acc.total), acc.total_dtype)
        else:
            value = result(acc, Text(combined_lanes(acc)), acc.dtype)
        self.out.line(f"const {c_type(acc.fold.dtype, 'cpu')} {acc.name} = {value.code};")
        return Text(acc.name)

    def _keep_refs(self, env: Env) -> dict[str, Text]:
        return {
            name: Text(f"{k.array}[{env.index.text(flat_column(k.cols)).code}]")
            for name, k in self.kept.items()
        }

    def _whole_vectors(self, v: Var) -> int:
        """The columns in front that are whole vectors; 0 where an overlapping one cannot follow:
        it computes values twice, which must not change what they are computed from."""
        in_place = not set(self.kernel.reads).isdisjoint(self.kernel.writes)
        return 0 if in_place and v.extent % VECTOR else v.extent // VECTOR * VECTOR

    def _simd_loop(self, env: Env, accs: Sequence[Accumulator], main: int) -> LoopHead:
        """A loop over whole vectors, and one over the last, of which some columns are counted."""
        inner, clauses = plain_loop(env, self.out), reduction_clauses(accs)

        def loop(v: Var, over: Range, body: Emit) -> None:
            self.out.line(f"{simd_pragma(self.kernel)}{clauses}")
            inner(v, over, lambda _: body())

        def write(v: Var, over: Range, body: Point) -> None:
            if not 0 < main < v.extent or over.last != str(v.extent):
                loop(v, over, lambda: body(""))
                return
            if over.first != str(main):
                loop(v, Range(over.first, str(main)), lambda: body(""))
            # For a single column compilers find better code than for its vector.
            single = main + 1 == v.extent and any(a.counts for a in accs)
            first = main if single else v.extent - VECTOR
            counted = "" if single else f"{env.variables[v]} >= {main}"
            loop(v, Range(str(first), over.last), lambda: body(counted))

        return write

    def _lane_loop(self, lanes: int, env: Env) -> LoopHead:
        """`for (base += lanes) for (lane < lanes)` over the innermost columns; the last lanes
        overlap those before them."""
        out = self.out

        def write(v: Var, over: Range, body: Point) -> None:
            name, kind = env.variables[v], loop_type(v)
            whole = self._whole_vectors(v) >= lanes
            base = env.names.fresh(f"{name}_base")
            head = f"for ({kind} {base} = {over.first}; {base} < {over.last}; {base} += {lanes})"
            with out.block(head):
                width, start, counted = str(lanes), base, ""
                if v.extent % lanes and whole:
                    start, counted = env.names.fresh(f"{name}_first"), f"{name} >= {base}"
                    last = f"{over.last} - {lanes}"
                    out.line(f"const {kind} {start} = fw_minimum<{kind}>({base}, {last});")
                elif v.extent % lanes:
                    width = "width"
                    left = f"{over.last} - {base}"
                    out.line(f"const int width = fw_minimum<{kind}>({lanes}, {left});")
                out.line(simd_pragma(self.kernel))
                lane = out.block(f"for (int lane = 0; lane < {width}; lane++)")
                with lane, out.declared(name, f"const {kind} {name} = {start} + lane;"):
                    body(counted)

        return write


def _lanes(extent: int) -> int:
    """Lanes for `extent` columns: fewer where combining them would take longer than the row."""
    return ROW_LANES if extent >= 8 * ROW_LANES else VECTOR
