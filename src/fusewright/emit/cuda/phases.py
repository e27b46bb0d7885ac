"""The phases of emitted CUDA reductions: chunks of columns, unrolled or in loops, and their folds.

A chunk is what one thread handles at one step. Chunks are fully unrolled where values are kept in
registers, else a loop takes `items` of them at a time, all loads first. Who owns which rows is
decided in `reduce`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from fusewright.emit.cstyle import Env, evaluate, name_value
from fusewright.emit.ctext import Text, Writer
from fusewright.ir.body import Expr, Load, Ref, walk
from fusewright.ir.index import Var
from fusewright.ir.kernel import Keep, Kernel, Phase
from fusewright.ir.phases import recomputes, without_keeps

from .access import (
    Fetch,
    Guards,
    VectorAxis,
    declare_fetches,
    guard,
    index_variables,
    lane_loop,
    loaded,
    nothing,
    plan_fetches,
    unrolled,
    usable_width,
    write_fetches,
    write_lanes,
)
from .folds import Registers, declare, fold_columns, fold_row, fold_values, registers
from .loops import index_type, positions

# Registers (32-bit) that fetches of one thread may hold before the first of them is used.
FETCH_REGISTERS = 64
# Registers of a multiprocessor, and of a thread at most; what a thread needs besides values and
# accumulators; what independent accumulators may take before the items of a chunk share one.
FILE_REGISTERS = 1 << 16
MAX_REGISTERS = 255
OTHER_REGISTERS = 24
ACCUMULATOR_REGISTERS = 32


@dataclass(frozen=True, slots=True)
class Split:
    """How one phase's points are dealt to threads.

    Chunk `c` of a thread starts at `first + c * step` (in points of the columns, row-major);
    `chunks` of them cover all `extent` points; `ragged` when the last may be past the end.
    """

    axis: VectorAxis
    extent: int
    step: int
    scale: int

    @property
    def chunks(self) -> int:
        return -(-self.extent // self.step)

    @property
    def ragged(self) -> bool:
        return self.extent % self.step != 0


@dataclass(frozen=True, slots=True)
class Threads:
    """The tile a reduction runs with, and the names of a thread's place in it.

    `number` is the thread's number among those that split the columns; `leader` and `live` are the
    conditions under which it stores the results of its row (empty: always).
    """

    anchor: str
    threads: int
    lanes: int
    items: int
    vector: int
    number: str
    leader: str
    live: str
    row_axis: VectorAxis

    def split(self, phase: Phase) -> Split:
        """The points of a phase."""
        if self.anchor == "column_reduce":
            return Split(self.row_axis, phase.extent, self.lanes, 1)
        inner = phase.cols[-1]
        width = usable_width(self.vector, inner.extent)
        return Split(VectorAxis(inner, width), phase.extent, self.lanes * width, width)


@dataclass(frozen=True, slots=True)
class KeptRegisters:
    """Where a kept value lives: `name` with one element per chunk and vector lane."""

    name: str
    cols: tuple[Var, ...]
    chunks: int
    width: int

    @property
    def dims(self) -> str:
        return "".join(f"[{n}]" for n in (self.chunks, self.width) if n > 1)

    @property
    def here(self) -> Text:
        """The element of the current chunk and lane."""
        chunk = "[chunk]" if self.chunks > 1 else ""
        return Text(self.name + chunk + ("[v]" if self.width > 1 else ""))


@dataclass(frozen=True, slots=True)
class Reduction:
    """Writes the phases of a reduction, one after the other.

    `flat` is the name of the row-major position in columns of several axes.
    """

    kernel: Kernel
    grid: Threads
    out: Writer
    flat: str
    kept: dict[str, KeptRegisters] = field(default_factory=dict)

    def write(self, env: Env) -> None:
        for phase in self._affordable().phases:
            env = self._columns(phase, env) if phase.cols else self._single(phase, env)

    def _affordable(self) -> Kernel:
        """The kernel, without the values kept over columns where these exceed the registers."""

        def cost(phase: Phase, keep: Keep) -> int:
            split = self.grid.split(phase) if phase.cols else None
            points = split.chunks * split.axis.width if split else 0
            return -(-keep.body.dtype.bytes // 4) * points

        total = sum(cost(p, k) for p in self.kernel.phases for k in p.keeps)
        if total <= free_registers(self.grid.threads) or not recomputes(self.kernel):
            return self.kernel
        dropped = without_keeps(self.kernel.phases, lambda phase, keep: cost(phase, keep) > 1)
        return replace(self.kernel, phases=dropped)

    # ------------------------------------------------------------------- phases without columns

    def _single(self, phase: Phase, env: Env) -> Env:
        """One point: every thread of the row computes it, the leader stores it."""
        axis, out = self.grid.row_axis, self.out
        for k in phase.keeps:
            env = env.with_refs({k.name: self._single_value(k.name, k.body, env)})
        refs = {}
        for f in phase.folds:
            if f.position is None:
                refs[f.name] = self._single_value(f.name, f.body, env)
            else:
                refs[f.name] = env.index.text(f.position)
        env = env.with_refs(refs)
        if phase.stores:
            with guard(_conjunction(self.grid.leader, self.grid.live), out):
                fetches = plan_fetches([s.body for s in phase.stores], axis, env)
                fetches = fetches if axis.width > 1 else ()
                write_fetches(fetches, axis, "", env, out, declare=True)
                write_lanes(
                    (), nothing, phase.stores, axis, env.with_loaded(loaded(fetches, "")), out
                )
        return env

    def _single_value(self, name: str, body: Expr, env: Env) -> Text:
        axis, out = self.grid.row_axis, self.out
        if axis.width == 1:
            return name_value(name, body, env, out)
        fresh = env.names.fresh(name)
        out.line(f"{env.c_type(body)} {fresh}[{axis.width}];")

        def one(lane_env: Env) -> None:
            value = name_value(name, body, lane_env, out)
            out.line(f"{fresh}[v] = {value.code};")

        lane_loop(axis, env, out, one)
        return Text(f"{fresh}[v]")

    # ---------------------------------------------------------------------- phases over columns

    def _columns(self, phase: Phase, env: Env) -> Env:
        split = self.grid.split(phase)
        unroll = self._is_unrolled(phase, split)
        if split.chunks <= 1:  # no loop, so no scope of its own: names of its own
            env = env.with_variables({v: env.names.fresh(v.name) for v in phase.cols})
        for k in phase.keeps:
            self._declare_keep(k, phase, split, env)
        here = env.with_refs({n: k.here for n, k in self.kept.items()})
        here = self._fetch_fixed(phase, split, env, here)
        fetches = plan_fetches(phase.bodies, split.axis, here)
        items = 1 if unroll else self._items(phase, split, fetches)
        shared = items > 1 and self._shares(phase, split)
        accs = registers(phase, 1 if shared else items, split.axis.width, env)
        for acc in accs:
            declare(acc, self.out)
        if unroll:
            self._unrolled(phase, split, fetches, accs, here)
        else:
            self._looped(phase, split, items, fetches, accs, here)
        return env.with_refs(self._fold(accs, env)) if accs else env

    def _declare_keep(self, keep: Keep, phase: Phase, split: Split, env: Env) -> None:
        name = env.names.fresh(keep.name)
        kept = KeptRegisters(name, phase.cols, split.chunks, split.axis.width)
        self.kept[keep.name] = kept
        self.out.line(f"{env.c_type(keep.body)} {name}{kept.dims};")

    def _items(self, phase: Phase, split: Split, fetches: Sequence[Fetch]) -> int:
        """Chunks taken together: the tile's, or as many as the fetched values leave registers."""
        one = Split(split.axis, split.step, split.step, split.scale)
        cost = _fetch_cost(fetches, one)
        free = free_registers(self.grid.threads)
        accumulators = 1 if self._shares(phase, split) else self.grid.items
        free -= _fold_cost(phase, split) * accumulators
        return max(1, min(self.grid.items, free // max(cost, 1)))

    def _shares(self, phase: Phase, split: Split) -> bool:
        """Whether the items of a chunk share an accumulator of each fold: there are many folds."""
        return _fold_cost(phase, split) * self.grid.items > ACCUMULATOR_REGISTERS

    def _fold(self, accs: Sequence[Registers], env: Env) -> Mapping[str, Text]:
        g = self.grid
        if g.anchor == "row_reduce":
            return fold_row(accs, g.lanes, env, self.out)
        return fold_columns(accs, g.lanes, g.threads // g.lanes, env, self.out)

    def _is_unrolled(self, phase: Phase, split: Split) -> bool:
        """Whether all chunks are unrolled: kept values are registers, named by a constant chunk."""
        refers = any(
            isinstance(e, Ref) and e.name in self.kept for e in walk(*phase.bodies)
        )
        return bool(phase.keeps) or refers or split.chunks <= self.grid.items

    def _fetch_fixed(self, phase: Phase, split: Split, env: Env, here: Env) -> Env:
        """Fetches once what does not change along the columns; returns `here` knowing it."""
        cols = set(phase.cols)

        def is_fixed(load: Load, guards: Guards) -> bool:
            return not guards and not cols & set(index_variables(load))

        fixed = plan_fetches(phase.bodies, split.axis, env, is_fixed)
        write_fetches(fixed, split.axis, "", env, self.out, declare=True)
        return here.with_loaded(loaded(fixed, ""))

    @contextmanager
    def _chunk(self, split: Split, phase: Phase, start: str, env: Env) -> Iterator[None]:
        """The statements of one chunk: its position, guarded by the end of the columns."""
        flat, out = self._flat(phase, env), self.out
        if split.chunks <= 1 and len(phase.cols) > 1:
            flat = env.names.fresh(flat)
        bound = f"{flat} < {split.extent}" if split.ragged else ""
        here = out.declared(flat, f"const {index_type(split.extent)} {flat} = {start};")
        with here, guard(bound, out), positions(phase.cols, flat, env, out):
            yield

    def _flat(self, phase: Phase, env: Env) -> str:
        return env.variables[phase.cols[0]] if len(phase.cols) == 1 else self.flat

    def _unrolled(
        self,
        phase: Phase,
        split: Split,
        fetches: Sequence[Fetch],
        accs: Sequence[Registers],
        env: Env,
    ) -> None:
        out, number = self.out, self.grid.number
        offset = "" if number == "0" else f" + {scaled(number, split.scale)}"
        start = scaled(number, split.scale)
        if split.chunks > 1:
            start = f"{scaled('chunk', split.step)}{offset}"
        early = split.chunks > 1 and _fetch_cost(fetches, split) <= FETCH_REGISTERS
        slot = "[chunk]" if early else ""
        if early and fetches:
            declare_fetches(fetches, split.axis, split.chunks, out)
            with unrolled("chunk", split.chunks, out), self._chunk(split, phase, start, env):
                write_fetches(fetches, split.axis, slot, env, out, declare=False)
        with unrolled("chunk", split.chunks, out), self._chunk(split, phase, start, env):
            if not early:
                write_fetches(fetches, split.axis, "", env, out, declare=True)
            self._point(phase, split, accs, env.with_loaded(loaded(fetches, slot)))

    def _looped(
        self,
        phase: Phase,
        split: Split,
        items: int,
        fetches: Sequence[Fetch],
        accs: Sequence[Registers],
        env: Env,
    ) -> None:
        out = self.out
        flat, kind = self._flat(phase, env), index_type(split.extent)
        base = env.names.fresh(f"{flat}_base")
        first = scaled(self.grid.number, split.scale)
        stride = split.step * items
        # Whole rounds need no guard; a ragged end is guarded item by item.
        ragged = split.extent % stride != 0
        inner = Split(split.axis, split.extent, split.step if not ragged else stride, split.scale)
        start = f"{base} + {scaled('item', split.step)}" if items > 1 else base
        slot = "[item]" if items > 1 else ""
        head = f"for ({kind} {base} = {first}; {base} < {split.extent}; {base} += {stride})"
        with out.block(head):
            bound = inner if ragged else split
            if items > 1 and fetches:
                declare_fetches(fetches, split.axis, items, out)
                with unrolled("item", items, out), self._chunk(bound, phase, start, env):
                    write_fetches(fetches, split.axis, slot, env, out, declare=False)
            with unrolled("item", items, out), self._chunk(bound, phase, start, env):
                if items == 1:
                    write_fetches(fetches, split.axis, "", env, out, declare=True)
                self._point(phase, split, accs, env.with_loaded(loaded(fetches, slot)))

    def _point(
        self, phase: Phase, split: Split, accs: Sequence[Registers], env: Env
    ) -> None:
        """The points of one chunk, lane by lane: keeps, then folds and stores."""
        axis, out = split.axis, self.out
        bodies = [f.body for f in phase.folds]

        def fold(values: Sequence[Text], lane_env: Env) -> None:
            fold_values(phase, accs, values, lane_env, out)

        if phase.keeps:
            lane_loop(axis, env, out, lambda lane_env: self._keep(phase, lane_env))
        if phase.stores and self.grid.live:
            if bodies:
                write_lanes(bodies, fold, (), axis, env, out)
            with guard(self.grid.live, out):
                write_lanes((), nothing, phase.stores, axis, env, out)
        elif bodies or phase.stores:
            write_lanes(bodies, fold, phase.stores, axis, env, out)

    def _keep(self, phase: Phase, env: Env) -> None:
        """The registers of the kept values of one point."""
        for k in phase.keeps:
            value = evaluate([k.body], env, self.out)[0]
            self.out.line(f"{self.kept[k.name].here.code} = {value.code};")


def free_registers(threads: int) -> int:
    """32-bit registers of a thread for values, in blocks of `threads`."""
    return min(FILE_REGISTERS // threads, MAX_REGISTERS) - OTHER_REGISTERS


def scaled(number: str, scale: int) -> str:
    """`number * scale`."""
    return number if scale == 1 or number == "0" else f"{number} * {scale}"


def _conjunction(*conditions: str) -> str:
    return " && ".join(c for c in conditions if c)


def _fold_cost(phase: Phase, split: Split) -> int:
    """32-bit registers of one accumulator of each fold, for all lanes of a vector."""
    return split.axis.width * sum(
        -(-f.dtype.bytes // 4) + (1 if f.position is not None else 0) for f in phase.folds
    )


def _fetch_cost(fetches: Sequence[Fetch], split: Split) -> int:
    """32-bit registers that all chunks' fetches take together."""
    per_chunk = sum(
        -(-f.load.dtype.bytes * (1 if f.kind == "uniform" else split.axis.width) // 4)
        for f in fetches
    )
    return per_chunk * split.chunks

