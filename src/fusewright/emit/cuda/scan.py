"""Scans of emitted CUDA: one pass over the columns of a row, in chunks with a running carry.

row_scan: the 32 threads of a warp take neighbouring vectors, `items` times; warps of a block follow
each other along the row. column_scan: threads own vectors of neighbouring rows, and groups of
threads follow each other along the columns. Either way a chunk is scanned by the threads together
(`fw_scan_row`, `fw_scan_columns` of the skeletons), and the carry is added. Each element is read
once and written once; the order of operations is fixed.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace

from fusewright.emit.cstyle import Env
from fusewright.emit.ctext import Text, Writer, c_type
from fusewright.emit.spell import convert
from fusewright.ir.body import Expr, Ref, walk
from fusewright.ir.dtypes import FLOAT32, FLOAT64, DType
from fusewright.ir.index import Var
from fusewright.ir.kernel import Phase, Prefix

from .access import (
    Fetch,
    VectorAxis,
    declare_fetches,
    guard,
    loaded,
    plan_fetches,
    unrolled,
    usable_width,
    write_fetches,
    write_lanes,
)
from .folds import Registers, declare, registers
from .loops import index_type
from .phases import Reduction, Split, Threads, scaled

WARP = 32


@dataclass(frozen=True, slots=True)
class Deal:
    """How the columns of a scan are dealt: `lanes` threads next to each other take a vector of
    `width` columns each, `items` times, and `groups` of them follow each other."""

    column: Var
    axis: VectorAxis
    width: int
    lanes: int
    groups: int
    items: int
    reverse: bool

    @property
    def chunk(self) -> int:
        """Columns that all threads take together."""
        return self.groups * self.items * self.lanes * self.width

    @property
    def chunks(self) -> int:
        return -(-self.column.extent // self.chunk)

    @property
    def ragged(self) -> bool:
        return self.column.extent % self.chunk != 0

    @property
    def element(self) -> str:
        """The place of the current point among the values of a thread, in scan order."""
        item = "item" if self.items > 1 else "0"
        lane = "v" if self.axis.width > 1 else "0"
        if self.width > 1 and self.reverse:
            lane = f"{self.width - 1} - v"
        return f"[{item}][{lane}]"

    def column_at(self, chunk: str, first: str) -> str:
        """The first column of the current vector."""
        terms = [scaled(chunk, self.chunk)] if chunk != "0" else []
        terms += [scaled("item", self.lanes * self.width)] if self.items > 1 else []
        terms += [first] if first else []
        if self.reverse:
            return " - ".join([str(self.column.extent - self.width), *terms])
        return " + ".join(terms) or "0"


def deal(grid: Threads, phase: Phase) -> Deal:
    """The deal of a scan's only column variable."""
    (k,) = phase.cols
    items, reverse = grid.items, phase.reverse
    if grid.anchor == "column_reduce":
        items = min(items, -(-k.extent // grid.lanes))
        return Deal(k, grid.row_axis, 1, 1, grid.lanes, items, reverse)
    width, lanes = usable_width(grid.vector, k.extent), min(grid.lanes, WARP)
    groups = grid.lanes // lanes
    items = min(items, -(-k.extent // (groups * lanes * width)))
    return Deal(k, VectorAxis(k, width), width, lanes, groups, items, reverse)


@dataclass(frozen=True, slots=True)
class Running(Registers):
    """The values of one scan: `name` holds a thread's chunk, `items` x `width` of them."""

    @property
    def op(self) -> str:
        kind = self.fold.kind
        return f"fw_op_running_{kind}" if self.is_arg else f"fw_op_{kind}"

    @property
    def carry_dtype(self) -> DType:
        """float32 sums and products are carried in double: no error from the number of chunks."""
        wide = self.fold.kind in ("sum", "prod") and self.dtype == FLOAT32
        return FLOAT64 if wide else self.dtype

    @property
    def carry_type(self) -> str:
        return self.c_type if self.is_arg else c_type(self.carry_dtype, "cuda")

    @property
    def none(self) -> str:
        """The identity as an argument of the values' type."""
        value = self.identity
        return value if self.is_arg or self.dtype.kind != "int" else f"({self.c_type}){value}"


@dataclass(frozen=True, slots=True)
class Scans(Reduction):
    """Writes the phases of a kernel with scans; those without are a reduction's."""

    def _columns(self, phase: Phase, env: Env) -> Env:
        if not phase.scans:
            return Reduction._columns(self, phase, env)  # slots: no super()
        plan = deal(self.grid, phase)
        if plan.chunks == 1:  # no loop, so no scope of its own: names of its own
            env = env.with_variables({plan.column: env.names.fresh(plan.column.name)})
        split = Split(plan.axis, plan.column.extent, plan.chunk, plan.width)
        here = self._fetch_fixed(phase, split, env, env)
        accs = registers(phase, 1, plan.axis.width, env)
        for acc in accs:
            declare(acc, self.out)
        values = {s.name: self._values(s, plan, env) for s in phase.scans}
        first = self._first(plan, env)
        fetches = plan_fetches(phase.bodies, plan.axis, here)
        _ScanPass(self, phase, plan, fetches, values, accs, first).write(here)
        return env.with_refs(self._fold(accs, env)) if accs else env

    def _first(self, plan: Deal, env: Env) -> str:
        """Declares where a thread's columns start in a chunk; its name, empty for 0."""
        part = plan.items * plan.lanes * plan.width
        if self.grid.anchor == "column_reduce":
            terms = [scaled("group", part)] if plan.groups > 1 else []
        elif plan.groups > 1:
            terms = [f"threadIdx.x / {WARP} * {part}", scaled(f"threadIdx.x % {WARP}", plan.width)]
        else:
            terms = [scaled("lane", plan.width)] if plan.lanes > 1 else []
        if not terms:
            return ""
        name = env.names.fresh("first")
        self.out.line(f"const int {name} = {' + '.join(terms)};")
        return name

    def _values(self, s: Prefix, plan: Deal, env: Env) -> Running:
        """Declares the carry of a scan and what its groups exchange."""
        values = Running(s, env.names.fresh(s.name), plan.items, plan.axis.width)  # type: ignore[arg-type]
        out, across = self.out, plan.axis.width if self.grid.anchor == "column_reduce" else 1
        dims = f"[{across}]" if self.grid.anchor == "column_reduce" else ""
        start = values.none
        if values.carry_dtype != values.dtype and not values.is_arg:
            start = start.removesuffix("f")
        if dims:
            out.line(f"{values.carry_type} {values.name}_carry{dims};")
            out.line(f"fw_fill({values.name}_carry, {start});")
        else:
            out.line(f"{values.carry_type} {values.name}_carry = {start};")
        if plan.groups > 1:
            per_group = across * self.grid.threads // plan.groups if dims else 1
            size = f"[{plan.groups}]" + (f"[{per_group}]" if dims else "")
            out.line(f"__shared__ {values.c_type} {values.name}_groups[2]{size};")
        return values


@dataclass(frozen=True, slots=True)
class _ScanPass:
    """The loop over the chunks of one phase."""

    reduction: Scans
    phase: Phase
    plan: Deal
    fetches: Sequence[Fetch]
    values: dict[str, Running]
    accs: Sequence[Registers]
    first: str

    @property
    def out(self) -> Writer:
        return self.reduction.out

    def write(self, env: Env) -> None:
        plan, out = self.plan, self.out
        ahead = self.reduction.kernel.tile.stages > 1 and plan.chunks > 1 and bool(self.fetches)
        later = [replace(f, name=env.names.fresh(f"{f.name}_next")) for f in self.fetches]
        if ahead:
            declare_fetches(later, plan.axis, plan.items, out)
            with out.block("") if plan.items == 1 else nullcontext():
                self._fetch(later, "0", env)
        with ExitStack() as stack:
            chunk = "0"
            if plan.chunks > 1:
                chunk = env.names.fresh("part")
                head = f"for (int {chunk} = 0; {chunk} < {plan.chunks}; {chunk}++)"
                stack.enter_context(out.block(head))
            if plan.items == 1:  # one position in the whole chunk
                stack.enter_context(self._column(chunk, env))
            declare_fetches(self.fetches, plan.axis, plan.items, out)
            if ahead:
                self._advance(later, chunk, env)
            else:
                self._fetch(self.fetches, chunk, env, known=plan.items == 1)
            inside = env.with_loaded(loaded(self.fetches, self._slot))
            for wave in waves(self.phase.scans):
                inside = self._scan(wave, chunk, inside)
            with self._points(chunk, inside, known=plan.items == 1):
                split = Split(plan.axis, plan.column.extent, plan.chunk, plan.width)
                rest = replace(self.phase, scans=())
                self.reduction._point(rest, split, self.accs, inside)

    @property
    def _slot(self) -> str:
        return "[item]" if self.plan.items > 1 else ""

    def _column(self, chunk: str, env: Env) -> AbstractContextManager[None]:
        """The declaration of the first column of the current vector."""
        name, kind = env.variables[self.plan.column], index_type(self.plan.column.extent)
        line = f"const {kind} {name} = {self.plan.column_at(chunk, self.first)};"
        return self.out.declared(name, line)

    @contextmanager
    def _points(self, chunk: str, env: Env, known: bool = False) -> Iterator[None]:
        """A thread's vectors of a chunk, guarded by the row's end; the column may be `known`."""
        plan, out = self.plan, self.out
        name = env.variables[plan.column]
        inside = f"{name} >= 0" if plan.reverse else f"{name} < {plan.column.extent}"
        column = nullcontext() if known else self._column(chunk, env)
        live = guard(inside if plan.ragged else "", out)
        with unrolled("item", plan.items, out), column, live:
            yield

    def _fetch(
        self, fetches: Sequence[Fetch], chunk: str, env: Env, known: bool = False
    ) -> None:
        if fetches:
            with self._points(chunk, env, known):
                write_fetches(fetches, self.plan.axis, self._slot, env, self.out, declare=False)

    def _advance(self, later: Sequence[Fetch], chunk: str, env: Env) -> None:
        """Takes over what was fetched ahead, and fetches the next chunk."""
        with unrolled("item", self.plan.items, self.out):
            for now, then in zip(self.fetches, later, strict=True):
                self.out.line(f"{now.name}{self._slot} = {then.name}{self._slot};")
        with self.out.block(f"if ({chunk} + 1 < {self.plan.chunks})"):
            self._fetch(later, f"({chunk} + 1)", env)

    def _scan(self, wave: Sequence[Prefix], chunk: str, env: Env) -> Env:
        """The scans of one wave over one chunk; returns `env` knowing their values."""
        plan, out = self.plan, self.out
        wave_values = [self.values[s.name] for s in wave]
        for x in wave_values:
            out.line(f"{x.c_type} {x.name}[{plan.items}][{plan.axis.width}];")
            if plan.ragged:
                out.line(f"fw_fill({x.name}, {x.none});")
        with self._points(chunk, env, known=plan.items == 1):
            write_lanes([s.body for s in wave], self._keep(wave_values), (), plan.axis, env, out)
        for x in wave_values:
            out.line(self._call(x, chunk))
        return env.with_refs(
            {x.fold.name: x.result(Text(x.name + plan.element)) for x in wave_values}
        )

    def _keep(self, wave: Sequence[Running]) -> Callable[[Sequence[Text], Env], None]:
        def keep(bodies: Sequence[Text], env: Env) -> None:
            for x, body in zip(wave, bodies, strict=True):
                value = convert(body, x.fold.body.dtype, x.dtype, "cuda").code
                if x.fold.position is not None:
                    value = f"{x.c_type}{{{value}, {env.index.text(x.fold.position).code}}}"
                self.out.line(f"{x.name}{self.plan.element} = {value};")

        return keep

    def _call(self, x: Running, chunk: str) -> str:
        plan, s = self.plan, x.fold
        columns = self.reduction.grid.anchor == "column_reduce"
        exclusive = "true" if s.exclusive else "false"  # type: ignore[attr-defined]
        shared = f", {x.name}_groups[{chunk} % 2]" if plan.groups > 1 else ""
        shared = shared.replace("0 % 2", "0")
        if columns:
            across = self.reduction.grid.threads // plan.groups
            place = f", group, threadIdx.x % {across}" if plan.groups > 1 else ""
            name, arguments = f"fw_scan_columns<{x.op}, {exclusive}>", shared + place
        else:
            name, arguments = f"fw_scan_row<{x.op}, {exclusive}, {plan.lanes}>", shared
        return f"{name}({x.name}, {x.none}, {x.name}_carry{arguments});"


def waves(scans: Sequence[Prefix]) -> list[list[Prefix]]:
    """Scans in groups of which none needs another of its group."""
    out: list[list[Prefix]] = []
    known: dict[str, int] = {}
    for s in scans:
        level = max((known[n] + 1 for n in _names(s.body) if n in known), default=0)
        known[s.name] = level
        if level == len(out):
            out.append([])
        out[level].append(s)
    return out


def _names(body: Expr) -> list[str]:
    return [e.name for e in walk(body) if isinstance(e, Ref)]
