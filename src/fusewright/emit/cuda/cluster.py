"""Row reductions of emitted CUDA whose rows fit no single block: thread-block clusters (Hopper).

The blocks of a cluster share a row. Each keeps its part of the row in its own shared memory, so
that memory is read once; folds are combined through distributed shared memory. Threads read only
what they kept themselves, so kept values need no barrier.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from fusewright.emit.cstyle import Env, evaluate
from fusewright.emit.ctext import Text, Writer
from fusewright.errors import IRError
from fusewright.ir.body import Ref, walk
from fusewright.ir.kernel import Kernel, Phase, shared_slots

from .access import (
    Fetch,
    VectorAxis,
    declare_fetches,
    lane_loop,
    loaded,
    plan_fetches,
    unrolled,
    write_fetches,
    write_lanes,
)
from .folds import Registers, declare, fold_values, fold_warps, named, registers
from .loops import Launch, index_type, positions
from .phases import Reduction, Split, Threads, scaled

# Blocks per cluster that every device of compute capability 9.0 must support, and with consent.
PORTABLE_CLUSTER = 8
LARGEST_CLUSTER = 16


def row_cluster(kernel: Kernel, env: Env, out: Writer) -> Launch:
    """`lanes` threads in `lanes / threads` blocks share a row."""
    tile, rows = kernel.tile, kernel.row_count
    blocks = tile.lanes // tile.threads
    if blocks * tile.threads != tile.lanes or blocks & (blocks - 1) or blocks > LARGEST_CLUSTER:
        raise IRError(f"{kernel.name}: {tile.lanes} lanes in blocks of {tile.threads}")
    flat = env.variables[kernel.rows[0]] if len(kernel.rows) == 1 else env.names.fresh("row_at")
    lane = "threadIdx.x"
    if blocks > 1:
        out.line(f"const int rank = blockIdx.x % {blocks};")
        lane = f"rank * {tile.threads} + threadIdx.x"
    out.line(f"const int lane = {lane};")
    if kernel.rows:
        at = f"blockIdx.x / {blocks}" if blocks > 1 else "blockIdx.x"
        out.line(f"const {index_type(rows)} {flat} = {at};")
    grid = Threads(
        "row_cluster", tile.threads, tile.lanes, tile.items, tile.vector,
        number="lane", leader="lane == 0", live="", row_axis=VectorAxis(None, 1),
    )
    writer = Clustered(kernel, grid, out, env.names.fresh("col_at"))
    with positions(kernel.rows, flat, env, out):
        writer.declare_memory(env)
        writer.write(env)
    return Launch(rows * blocks, tile.threads, writer.shared_bytes, blocks)


@dataclass(frozen=True, slots=True)
class Clustered(Reduction):
    """Phases with kept values in dynamic shared memory: `slots[name]` is an array of vectors."""

    slots: dict[str, str] = field(default_factory=dict)

    @property
    def _split(self) -> Split:
        return self.grid.split(next(p for p in self.kernel.phases if p.cols))

    @property
    def _starts(self) -> list[int]:
        """Where each place of kept values begins in a block's memory, and where the last ends."""
        points = self._split.chunks * self.grid.threads * self._split.axis.width
        sizes = [size for _, size in sorted(set(shared_slots(self.kernel.phases).values()))]
        return [points * sum(sizes[:k]) for k in range(len(sizes) + 1)]

    @property
    def shared_bytes(self) -> int:
        return self._starts[-1]

    def declare_memory(self, env: Env) -> None:
        """The arrays of kept values; the cluster's barrier says that all blocks have begun."""
        out, blocks = self.out, self.grid.lanes // self.grid.threads
        if blocks > 1:
            out.line("fw_cluster_arrive();")
        out.line("extern __shared__ __align__(16) char kept_memory[];")
        starts = self._starts
        keeps = {k.name: k for p in self.kernel.phases for k in p.keeps}
        for name, (slot, _) in shared_slots(self.kernel.phases).items():
            kind = self._vector(env.c_type(keeps[name].body))
            self.slots[name] = env.names.fresh(f"{name}_row")
            start = f" + {starts[slot]}" if starts[slot] else ""
            out.line(f"{kind}* const {self.slots[name]} = ({kind}*)(kept_memory{start});")

    def _vector(self, element: str) -> str:
        width = self._split.axis.width
        return f"fw_vec<{element}, {width}>" if width > 1 else element

    def _affordable(self) -> Kernel:
        return self.kernel

    def _fold(self, accs: Sequence[Registers], env: Env) -> Mapping[str, Text]:
        """Blocks tell each other their results; every thread of the cluster combines them."""
        blocks, out = self.grid.lanes // self.grid.threads, self.out
        own = fold_warps(accs, self.grid.threads // 32, env, out)
        if blocks == 1:
            return {acc.fold.name: named(acc, value, env, out) for acc, value in own.items()}
        shared, values = {}, {}
        for acc, value in own.items():
            shared[acc] = env.names.fresh(f"{acc.fold.name}_blocks")
            values[acc] = env.names.fresh(f"{acc.fold.name}_block")
            out.line(f"__shared__ {acc.c_type} {shared[acc]}[{blocks}];")
            out.line(f"const {acc.c_type} {values[acc]} = {value};")
        first = next(p for p in self.kernel.phases if p.folds)
        if accs[0].fold in first.folds:
            out.line("fw_cluster_wait();")
        with out.block(f"if (threadIdx.x < {blocks})"):
            for acc, name in shared.items():
                out.line(f"fw_cluster_store(&{name}[rank], threadIdx.x, {values[acc]});")
        out.line("fw_cluster_arrive();")
        out.line("fw_cluster_wait();")
        return {
            acc.fold.name: named(acc, f"fw_fold_warps<{acc.op}>({name})", env, out)
            for acc, name in shared.items()
        }

    def _columns(self, phase: Phase, env: Env) -> Env:
        split = self.grid.split(phase)
        here = self._fetch_fixed(phase, split, env, env)
        fetches = plan_fetches(phase.bodies, split.axis, here)
        items = self._items(phase, split, fetches)
        accs = registers(phase, 1, split.axis.width, env)
        for acc in accs:
            declare(acc, self.out)
        self._chunks(phase, split, items, fetches, accs, here)
        return env.with_refs(self._fold(accs, env)) if accs else env

    def _chunks(
        self,
        phase: Phase,
        split: Split,
        items: int,
        fetches: Sequence[Fetch],
        accs: Sequence[Registers],
        env: Env,
    ) -> None:
        """Chunks in their order, `items` at a time: all loads, then what is done with them."""
        out = self.out
        items = next(n for n in range(min(items, split.chunks), 0, -1) if split.chunks % n == 0)
        step = "chunk++" if items == 1 else f"chunk += {items}"
        early = bool(fetches) and items > 1
        slot = "[item]" if items > 1 else ""
        with out.block(f"for (int chunk = 0; chunk < {split.chunks}; {step})"):
            if early:
                declare_fetches(fetches, split.axis, items, out)
                with unrolled("item", items, out), self._at(phase, split, items, env):
                    write_fetches(fetches, split.axis, slot, env, out, declare=False)
            with unrolled("item", items, out), self._at(phase, split, items, env):
                if not early:
                    write_fetches(fetches, split.axis, "", env, out, declare=True)
                known = env.with_loaded(loaded(fetches, slot))
                self._kept_point(phase, split, items, accs, known)

    @contextmanager
    def _at(self, phase: Phase, split: Split, items: int, env: Env) -> Iterator[None]:
        number = "(chunk + item)" if items > 1 else "chunk"
        start = f"{scaled(number, split.step)} + {scaled('lane', split.scale)}"
        with self._chunk(split, phase, start, env):
            yield

    def _kept_point(
        self, phase: Phase, split: Split, items: int, accs: Sequence[Registers], env: Env
    ) -> None:
        """One chunk: kept vectors it refers to, those it keeps, folds and stores."""
        axis, out = split.axis, self.out
        number = "(chunk + item)" if items > 1 else "chunk"
        place = f"[{number} * {self.grid.threads} + threadIdx.x]"
        lane = "[v]" if axis.width > 1 else ""
        values = {k.name: env.names.fresh(k.name) for k in phase.keeps}
        for e in dict.fromkeys(x for x in walk(*phase.bodies) if isinstance(x, Ref)):
            if e.name in self.slots and e.name not in values:
                kind, fresh = self._vector(env.c_type(e)), env.names.fresh(e.name)
                out.line(f"const {kind} {fresh} = {self.slots[e.name]}{place};")
                env = env.with_refs({e.name: Text(fresh + lane)})
        for k in phase.keeps:
            out.line(f"{self._vector(env.c_type(k.body))} {values[k.name]};")
        env = env.with_refs({name: Text(value + lane) for name, value in values.items()})

        def keep(lane_env: Env) -> None:
            for k in phase.keeps:
                value = evaluate([k.body], lane_env, out)[0]
                out.line(f"{values[k.name]}{lane} = {value.code};")

        def fold(found: Sequence[Text], lane_env: Env) -> None:
            fold_values(phase, accs, found, lane_env, out)

        if phase.keeps:
            lane_loop(axis, env, out, keep)
        for name, value in values.items():
            if name in self.slots:
                out.line(f"{self.slots[name]}{place} = {value};")
        if phase.folds or phase.stores:
            write_lanes([f.body for f in phase.folds], fold, phase.stores, axis, env, out)
