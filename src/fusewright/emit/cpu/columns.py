"""Column reductions of emitted C++: each lane of the innermost loop is a row with its own result.

The columns are the loops around the lanes; accumulators are arrays that stay in the L1 cache.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from math import prod

from fusewright.emit.cstyle import Env, evaluate, name_value
from fusewright.emit.ctext import ADD, Text, Writer, memory_type
from fusewright.ir.index import Index
from fusewright.ir.kernel import Keep, Kernel, Phase

from .clip import Clip, clipped
from .folds import (
    Accumulator,
    accumulators,
    declare,
    flush_to_lanes,
    result,
)
from .loops import (
    for_loop,
    is_fixed,
    is_parallel,
    loop_type,
    nest,
    parallel_for,
    simd_pragma,
    with_fixed,
)
from .nests import (
    STACK_BYTES,
    Kept,
    blocking,
    column_loops,
    declare_lanes,
    flat_column,
    heap_array,
    plain_loop,
    row_values,
    write_point,
)
from .scans import Carry, declare_carries
from .turned import runs_along_rows

# Rows of one block: their accumulators stay in the L1 cache; over many columns, in registers.
COLUMN_BLOCK, LONG_BLOCK = 1024, 128
MANY_COLUMNS = 64
# What the values kept for one block of rows may take: half of a small L2 cache.
KEEP_BYTES = 256 << 10


def column_block(kernel: Kernel) -> int:
    """Lanes of a column reduction: as many as cache or registers and the number of tasks allow."""
    *outer, inner = kernel.rows
    is_long = max(p.extent for p in kernel.phases) >= MANY_COLUMNS
    block = LONG_BLOCK if is_long else COLUMN_BLOCK
    kept = sum(k.body.dtype.bytes * p.extent for p in kernel.phases for k in p.keeps)
    while block > 64 and kept * block > KEEP_BYTES:
        block //= 2
    tasks = prod(v.extent for v in outer)
    while block > 64 and tasks * -(-inner.extent // block) < 8:
        block //= 2
    return block


def column_reduce(kernel: Kernel, block: int, env: Env, out: Writer) -> None:
    """Blocks of the innermost row axis (in parallel); the columns are loops around the lanes."""
    *outer, inner = kernel.rows
    name, kind = env.variables[inner], loop_type(inner)
    if is_parallel(kernel) and (outer or block < inner.extent):
        out.line(parallel_for(kernel, len(outer) + (block < inner.extent)))
    if block >= inner.extent:
        whole = _Columns(kernel, name, name, "", inner.extent, str(inner.extent), "", out)
        nest(outer, env, out, lambda: whole.block_of_rows(env))
        return
    base = env.names.fresh(f"{name}_base")

    def blocks() -> None:
        with out.block(f"for ({kind} {base} = 0; {base} < {inner.extent}; {base} += {block})"):
            width = str(block)
            if inner.extent % block:
                width = "width"
                left = f"{inner.extent} - {base}"
                out.line(f"const int width = fw_minimum<{kind}>({block}, {left});")
            here = f"const {kind} {name} = {base} + lane;"
            _Columns(kernel, name, "lane", here, block, width, base, out).block_of_rows(env)

    nest(outer, env, out, blocks)


@dataclass(frozen=True, slots=True)
class _Columns:
    """One block of rows: `block` lanes of which `width` are live.

    `row` names the row of a lane and `here` declares it; where one block has all rows, the lane
    itself is the row. `base` names the row of the first lane, "" for row 0.
    """

    kernel: Kernel
    row: str
    lane: str
    here: str
    block: int
    width: str
    base: str
    out: Writer

    def block_of_rows(self, env: Env) -> None:
        kept: dict[str, Kept] = {}
        for phase in self.kernel.phases:
            for k in phase.keeps:
                kept[k.name] = Kept(env.names.fresh(k.name), phase.cols)
                self._declare_keep(k, kept[k.name].array, phase.extent, env)
            env = self._phase(phase, kept, env)

    def _declare_keep(self, keep: Keep, name: str, extent: int, env: Env) -> None:
        kind, count = memory_type(keep.body.dtype, "cpu"), max(extent, 1) * self.block
        if count * keep.body.dtype.bytes <= STACK_BYTES:
            self.out.line(f"alignas(64) {kind} {name}[{count}];")
        else:
            heap_array(kind, name, count, self.out)

    def _phase(self, phase: Phase, kept: Mapping[str, Kept], env: Env) -> Env:
        here = env.with_refs(self._keep_refs(kept, phase, env))
        if runs_along_rows(phase):
            self._row_by_row(phase, kept, here)
            return env
        accs = accumulators(phase, env)
        blocks = blocking(phase, accs, 1)
        here = self._with_row_values(phase, kept, here)
        scans = declare_carries(phase, self.block, env, self.out)
        for acc in accs if blocks.step else ():
            declare(acc, acc.total, self.block, acc.total_dtype, self.out)
        column_loops(
            phase.cols,
            blocks,
            env,
            self.out,
            [plain_loop(env, self.out, phase.reverse)] * len(phase.cols),
            begin=lambda: declare_lanes(accs, self.block, self.out),
            body=lambda _: self._lane_loop(phase, accs, scans, here),
            flush=lambda: self._flush(accs) if blocks.step else None,
        )
        return env.with_refs({a.fold.name: self._result(a, bool(blocks.step)) for a in accs})

    def _row_by_row(self, phase: Phase, kept: Mapping[str, Kept], env: Env) -> None:
        """A phase whose vectors are neighbouring columns."""
        with self._lanes("0", self.width):
            found = row_values(phase, [n for n, k in kept.items() if k.cols]).items()
            env = env.with_loaded({e: name_value(name, e, env, self.out) for e, name in found})
            nest(phase.cols[:-1], env, self.out, lambda: self._along(phase, env))

    def _along(self, phase: Phase, env: Env) -> None:
        self.out.line(simd_pragma(self.kernel))
        with self.out.block(for_loop(phase.cols[-1], env)):
            write_point(phase, (), "", env, self.out)

    def _with_row_values(self, phase: Phase, kept: Mapping[str, Kept], env: Env) -> Env:
        """Computes what is the same for all columns before their loop, for each lane or for all."""
        every = row_values(phase, [n for n, k in kept.items() if k.cols])
        lanes = self.kernel.rows[-1:]
        fixed = {e: n for e, n in every.items() if is_fixed(e, lanes)}
        env = env.with_loaded({e: name_value(n, e, env, self.out) for e, n in fixed.items()})
        found = {e: env.names.fresh(n) for e, n in every.items() if e not in fixed}
        if not found:
            return env
        for e, name in found.items():
            self.out.line(f"{memory_type(e.dtype, 'cpu')} {name}[{self.block}];")
        self.out.line(simd_pragma(self.kernel))
        with self._lanes("0", self.width):
            values = evaluate([*found], env, self.out)
            for name, value in zip(found.values(), values, strict=True):
                self.out.line(f"{name}[{self.lane}] = {value.code};")
        return env.with_loaded({e: Text(f"{name}[{self.lane}]") for e, name in found.items()})

    @contextmanager
    def _lanes(self, first: str, end: str) -> Iterator[None]:
        """A loop over lanes in which the row is known."""
        head = f"for (int {self.lane} = {first}; {self.lane} < {end}; {self.lane}++)"
        lane = self.out.block(head)
        with lane, self.out.declared(self.row, self.here) if self.here else nullcontext():
            yield

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
            refs[name] = Text(f"{k.array}[{at} + {self.lane}]" if at else f"{k.array}[{self.lane}]")
        return refs

    def _result(self, acc: Accumulator, blocked: bool) -> Text:
        array = acc.total if blocked else acc.lanes
        if acc.is_arg:
            return Text(f"{array}_at[{self.lane}]")
        dtype = acc.total_dtype if blocked else acc.dtype
        return result(acc, Text(f"{array}[{self.lane}]"), dtype)

    def _lane_loop(
        self, phase: Phase, accs: Sequence[Accumulator], scans: Sequence[Carry], env: Env
    ) -> None:
        phase, clip = clipped(phase, self.kernel.rows[-1])
        conds = f"if ({env.index.conds(clip.conds).code})" if clip.conds else ""
        with self.out.block(conds) if conds else nullcontext():
            first, end = self._lanes_of(clip, env)
            if clip == Clip():
                env = with_fixed(phase.bodies, self.kernel.rows[-1:], env, self.out)
            self.out.line(simd_pragma(self.kernel))
            with self._lanes(first, end):
                write_point(phase, accs, f"[{self.lane}]", env, self.out, scans)

    def _lanes_of(self, clip: Clip, env: Env) -> tuple[str, str]:
        """The first lane of a loop and the one past the last, named where they are computed."""
        first, end = "0", self.width
        for x in clip.first:
            first = f"fw_maximum<int>({first}, {self._lane_at(x, env)})"
        for x in clip.last:
            end = f"fw_minimum<int>({end}, {self._lane_at(x + 1, env)})"
        names = []
        for wanted, text in (("first", first), ("end", end)):
            if "(" in text:
                name = env.names.fresh(f"{self.lane}_{wanted}")
                self.out.line(f"const int {name} = {text};")
                text = name
            names.append(text)
        return names[0], names[1]

    def _lane_at(self, row: Index, env: Env) -> str:
        """The lane of a row, as C."""
        text = env.index.text(row)
        return f"{text.at(ADD)} - {self.base}" if self.base else text.code
