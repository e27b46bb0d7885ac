"""Windows of emitted CUDA: every place of the input is loaded once per block and folded in turn.

A thread has neighbouring columns of the input. It walks down the rows with those that the windows
reach over in registers, folds them along the columns, and leaves a row of partial results in shared
memory, from which the block folds windows across and computes what follows. The separable order
(van Herk, "A fast algorithm for local minimum and maximum filters", 1992, names it for extrema)
takes `k + l` operations and loads for a window of `k x l`.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from math import prod

from fusewright.emit.cstyle import Env, evaluate
from fusewright.emit.ctext import Text, Writer
from fusewright.emit.spell import convert
from fusewright.errors import IRError
from fusewright.ir.body import Expr
from fusewright.ir.index import Index
from fusewright.ir.kernel import Kernel
from fusewright.ir.sliding import Layout, Slide, Windows, sliding

from .access import (
    VectorAxis,
    declare_fetches,
    guard,
    lane_loop,
    loaded,
    plan_fetches,
    unrolled,
    write_fetches,
)
from .folds import Registers, named
from .loops import Launch, index_type, positions
from .phases import Reduction, Threads

# Taps of a window across that are folded without a loop.
LARGEST_UNROLLED = 32
# Results of a thread that are computed without a loop.
RESULTS_UNROLLED = 4


def window(kernel: Kernel, env: Env, out: Writer) -> Launch:
    """Blocks of `lanes` threads per row of places, for `rows * steps` rows of windows."""
    windows = sliding(kernel.rows, kernel.phases)
    if windows is None:
        raise IRError(f"{kernel.name}: its fold does not slide along its rows")
    layout = Layout(windows, kernel.tile)
    if layout.outputs < 1 or kernel.tile.threads % kernel.tile.lanes:
        raise IRError(f"{kernel.name}: no window fits {kernel.tile}")
    return _Window(kernel, windows, layout, env, out).write()


@dataclass(frozen=True, slots=True)
class _Folded:
    """One fold's values: `column`, a thread's rows of places; `shared`, partial results of rows."""

    acc: Registers
    column: str
    shared: str

    def op(self, a: str, b: str) -> str:
        return f"{self.acc.op}::of({a}, {b})"


class _Window:
    """Writes one kernel; the steps' order is in `write` and `_step`."""

    def __init__(
        self, kernel: Kernel, windows: Windows, layout: Layout, env: Env, out: Writer
    ) -> None:
        self.kernel, self.windows, self.layout, self.out = kernel, windows, layout, out
        places: dict[Index, str] = {
            v: env.names.fresh(v.name) for v in (windows.at, windows.over) if v is not None
        }
        self.env = env = env.with_variables(places)
        self.at = places[windows.at]
        self.axis = VectorAxis(windows.at, layout.width)
        self.tap = env.variables[windows.taps[0]] if len(windows.taps) == 1 else "tap"
        self.fetches = plan_fetches([f.body for f in windows.folds], self.axis, env)
        self.folds = [
            _Folded(
                Registers(f, env.names.fresh(f"{f.name}_acc"), 1, 1),
                env.names.fresh(f"{f.name}_column"),
                env.names.fresh(f"{f.name}_rows"),
            )
            for f in windows.folds
        ]
        slid = [s.row for s in (windows.across, windows.down) if s is not None]
        self.outer = tuple(v for v in kernel.rows if v not in slid)
        self.tile_first = env.names.fresh(f"{windows.across.row.name}_first")
        self.row_first = env.names.fresh("row_first")

    def write(self) -> Launch:
        layout, out = self.layout, self.out
        count = prod(v.extent for v in self.outer)
        with ExitStack() as stack:
            live = self._position(count, stack)
            self._declare()
            if layout.carried:
                self._carry()
            self._fetch("0")
            if layout.steps == 1:
                self._step("0", live)
            else:
                with out.block(f"for (int step = 0; step < {layout.steps}; step++)"):
                    self._step("step", live)
        groups = -(-count // layout.groups)
        return Launch(layout.tiles * layout.heights * groups, layout.tile.threads)

    def _step(self, step: str, live: str) -> None:
        self._fold_fresh(step)
        self._fold_down(step)
        if step != "0":
            self._shift()
            with self.out.block(f"if (step + 1 < {self.layout.steps})"):
                self._fetch("(step + 1)")
        self.out.line("__syncthreads();")
        self._fold_across(step, live)

    # ------------------------------------------------------------------------- where a thread is

    def _position(self, count: int, stack: ExitStack) -> str:
        """Declares the thread's place in its block and the block's; the condition for live."""
        layout, out, env = self.layout, self.out, self.env
        grouped, block = layout.groups > 1, "blockIdx.x"
        out.line(f"const int lane = threadIdx.x{f' % {layout.lanes}' if grouped else ''};")
        if grouped:
            out.line(f"const int group = threadIdx.x / {layout.lanes};")
        across = (self.tile_first, layout.tiles, layout.outputs)
        for name, tiles, step in (across, (self.row_first, layout.heights, layout.block_rows)):
            if tiles > 1:
                out.line(f"const int {name} = {block} % {tiles} * {step};")
                block += f" / {tiles}"
        flat = env.variables[self.outer[0]] if len(self.outer) == 1 else env.names.fresh("outer")
        where, kind, live = block, index_type(count), ""
        if grouped:
            where = f"{block} * {layout.groups} + group"
        if grouped and count % layout.groups:
            wanted = env.names.fresh(f"{flat}_wanted")
            out.line(f"const {kind} {wanted} = {where};")
            live = f"{wanted} < {count}"
            where = f"{live} ? {wanted} : {count - 1}"
        if self.outer:
            out.line(f"const {kind} {flat} = {where};")
        stack.enter_context(positions(self.outer, flat, env, out))
        return live

    @contextmanager
    def _rows_of_places(self, step: str, first: int, count: int) -> Iterator[str]:
        """Unrolled over rows of places of a step, from its `first` on; gives the row's number."""
        out, down, over = self.out, self.windows.down, self.windows.over
        row = _sum("row" if count > 1 else "", first) or "0"
        if down is None or over is None:
            with out.block(""):
                yield row
            return
        start = self._first_row(step)
        if down.stride > 1 and start:
            start = f"({start}) * {down.stride}" if " " in start else f"{start} * {down.stride}"
        where = _sum(start, "row" if count > 1 else "", first) or "0"
        name = self.env.variables[over]
        declaration = f"const {index_type(over.extent)} {name} = {where};"
        with _scope("row", count, out), out.declared(name, declaration):
            yield row

    def _first_row(self, step: str) -> str:
        """The first row of windows of a step."""
        before = f"{step} * {self.layout.rows}" if step != "0" and self.layout.rows > 1 else step
        return _sum(
            self.row_first if self.layout.heights > 1 else "", "" if step == "0" else before
        )

    @contextmanager
    def _columns(self) -> Iterator[None]:
        """Unrolled over the thread's vectors of a row: their place is declared."""
        layout, out = self.layout, self.out
        place = self._lane_place()
        if not layout.whole:
            factor = self.windows.across.stride
            place = f"{self.tile_first}{f' * {factor}' if factor > 1 else ''} + {place}"
            place += f" - {layout.edge}" if layout.edge else ""
        kind = index_type(self.windows.at.extent)
        declaration = f"const {kind} {self.at} = {place};"
        with unrolled("chunk", layout.chunks, out), out.declared(self.at, declaration):
            yield

    def _lane_place(self) -> str:
        """Where the current vector is in a block's row of places."""
        width, chunks = self.layout.width, self.layout.chunks
        own = f"lane * {width}" if width > 1 else "lane"
        return f"chunk * {self.layout.lanes * width} + {own}" if chunks > 1 else own

    @contextmanager
    def _taps(self) -> Iterator[None]:
        """Unrolled over the columns that no slide takes."""
        loop = unrolled(self.tap, self.layout.taps, self.out)
        with loop, positions(self.windows.taps, self.tap, self.env, self.out):
            yield

    @property
    def _inside(self) -> str:
        """The condition that a thread's vector is of places that add something."""
        layout, extent = self.layout, self.windows.at.extent
        if layout.whole:
            return f"{self.at} < {extent}" if layout.columns > extent else ""
        return _both(f"{self.at} >= 0" if layout.edge else "", f"{self.at} < {extent}")

    @property
    def _below(self) -> str:
        """The condition that a row of places exists, where the last block is not full."""
        down, over = self.windows.down, self.windows.over
        if down is None or over is None or down.row.extent % self.layout.block_rows == 0:
            return ""
        return f"{self.env.variables[over]} < {over.extent}"

    # ------------------------------------------------------------------------- values and folds

    def _declare(self) -> None:
        layout, out = self.layout, self.out
        slots = layout.fresh * layout.chunks * layout.taps
        declare_fetches(self.fetches, self.axis, slots, out)
        for f in self.folds:
            columns = ((n, n) for n in (layout.depth, layout.columns_each))
            out.line(f"{f.acc.c_type} {_element(f.column, *columns)};")
        for f in self.folds:
            name = self._shared(f, *map(str, layout.shared_shape))
            out.line(f"__shared__ __align__(16) {f.acc.c_type} {name};")
        if layout.whole and layout.beyond:
            self._fill_beyond()

    def _fill_beyond(self) -> None:
        """Places beyond the edges, which no thread computes, add nothing."""
        layout, out = self.layout, self.out
        total = prod(layout.shared_shape[:3]) * layout.beyond
        extent = self.windows.at.extent
        threads = layout.tile.threads
        with out.block(f"for (int edge = threadIdx.x; edge < {total}; edge += {threads})"):
            out.line(f"const int place = edge % {layout.beyond};")
            where = f"place < {layout.edge} ? place : place + {extent}"
            if layout.edge in (0, layout.beyond):
                where = "place" if layout.edge else f"place + {extent}"
            counts = layout.shared_shape[:3]
            steps = [layout.beyond * prod(counts[n + 1 :]) for n in range(3)]
            indices = [f"edge / {step} % {n}" for step, n in zip(steps, counts, strict=True)]
            for f in self.folds:
                out.line(f"{self._shared(f, *indices, where)} = {f.acc.identity};")

    def _shared(self, f: _Folded, *indices: str) -> str:
        """A fold's partial result at (buffer, group, row, place); extents of one are left out."""
        return _element(f.shared, *zip(indices, self.layout.shared_shape, strict=True))

    def _slot(self) -> str:
        """Where the current row, vector and tap are among the fetched values."""
        terms, step = [], 1
        counts = ((self.tap, self.layout.taps), ("chunk", self.layout.chunks))
        for name, count in (*counts, ("row", self.layout.fresh)):
            if count > 1:
                terms.insert(0, name if step == 1 else f"{name} * {step}")
            step *= count
        return f"[{' + '.join(terms)}]" if terms else ""

    def _carry(self) -> None:
        """The rows of places above those that the first step loads."""
        own = [replace(f, name=self.env.names.fresh(f"{f.name}_first")) for f in self.fetches]
        with self._rows_of_places("0", 0, self.layout.carried) as row, self._columns():
            self._start(row)
            with guard(_both(self._below, self._inside), self.out), self._taps():
                write_fetches(own, self.axis, "", self.env, self.out, declare=True)
                self._take(row, loaded(own, ""))

    def _fetch(self, step: str) -> None:
        """Issues the loads of the rows of places that a step needs beyond those before."""
        out, layout = self.out, self.layout
        places, columns = self._rows_of_places(step, layout.carried, layout.fresh), self._columns()
        with places, columns, guard(_both(self._below, self._inside), out), self._taps():
            write_fetches(self.fetches, self.axis, self._slot(), self.env, out, declare=False)

    def _fold_fresh(self, step: str) -> None:
        """Values of the fetched rows of places, each tap folded in."""
        fresh = self._rows_of_places(step, self.layout.carried, self.layout.fresh)
        with fresh as row, self._columns():
            self._start(row)
            with guard(self._inside, self.out), self._taps():
                self._take(row, loaded(self.fetches, self._slot()))

    def _column(self, f: _Folded, row: str) -> str:
        """A thread's value at a row of places, in lane `v` of the current vector."""
        width, chunks = self.layout.width, self.layout.chunks
        terms = ["chunk" if width == 1 else f"chunk * {width}"] if chunks > 1 else []
        place = " + ".join([*terms, *(["v"] if width > 1 else [])])
        return _element(f.column, (row, self.layout.depth), (place, self.layout.columns_each))

    def _start(self, row: str) -> None:
        """The identity, where it may remain or several taps are folded."""
        if self.layout.taps == 1 and not self._inside:
            return
        with unrolled("v", self.layout.width, self.out):
            for f in self.folds:
                self.out.line(f"{self._column(f, row)} = {f.acc.identity};")

    def _take(self, row: str, fetched: Mapping[Expr, Text]) -> None:
        """Folds the value of the current tap into the columns' values."""
        bodies = [f.acc.fold.body for f in self.folds]

        def one(env: Env) -> None:
            values = evaluate(bodies, env, self.out)
            for f, value, body in zip(self.folds, values, bodies, strict=True):
                target = self._column(f, row)
                text = convert(value, body.dtype, f.acc.dtype, "cuda").code
                text = f.op(target, text) if self.layout.taps > 1 else text
                self.out.line(f"{target} = {text};")

        lane_loop(self.axis, self.env.with_loaded(fetched), self.out, one)

    def _fold_down(self, step: str) -> None:
        """Windows along the columns, their results to shared memory."""
        layout, out = self.layout, self.out
        buffer, group = _buffer(step), "group"
        with _scope("r", layout.rows, out), self._columns():
            place = _sum(self.at, layout.edge) if layout.whole else self._lane_place()
            with guard(self._inside if layout.whole else "", out):
                for f in self.folds:
                    target = self._shared(f, buffer, group, "r", place)
                    part = self._fold_column(f)
                    if layout.width > 1:
                        out.line(f"fw_store<{layout.width}>(&{target}, {part});")
                    else:
                        out.line(f"{target} = {part};")

    def _fold_column(self, f: _Folded) -> str:
        """Declares the fold of a window along the columns for each lane; returns its name."""
        layout, out, down = self.layout, self.out, self.windows.down
        part, kind = self.env.names.fresh(f"{f.acc.fold.name}_part"), f.acc.c_type
        lane = "[v]" if layout.width > 1 else ""
        out.line(f"{f'fw_vec<{kind}, {layout.width}>' if lane else kind} {part};")
        with unrolled("v", layout.width, out):
            first = "0" if layout.rows == 1 or down is None else _times("r", down.stride)
            out.line(f"{part}{lane} = {self._column(f, first)};")
            if down is not None:
                tap = self.env.variables[down.col]
                row = _sum("" if first == "0" else first, _times(tap, down.dilation))
                with _folding(tap, down, out):
                    out.line(f"{part}{lane} = {f.op(part + lane, self._column(f, row))};")
        return part

    def _shift(self) -> None:
        """The rows of places that the next step shares with this one move up."""
        layout, out = self.layout, self.out
        if not layout.carried:
            return
        row = "row" if layout.carried > 1 else ""
        with (
            unrolled("row", layout.carried, out),
            unrolled("chunk", layout.chunks, out),
            unrolled("v", layout.width, out),
        ):
            for f in self.folds:
                later = self._column(f, _sum(row, layout.fresh))
                out.line(f"{self._column(f, row or '0')} = {later};")

    # ------------------------------------------------------------------------- results

    def _fold_across(self, step: str, live: str) -> None:
        """Windows along the rows, and what follows from them."""
        layout, out, across = self.layout, self.out, self.windows.across
        name = self.env.variables[across.row]
        at = name if layout.tiles == 1 else self.env.names.fresh(f"{name}_at")
        parts = -(-layout.outputs // layout.lanes)
        out.line(f"#pragma unroll {min(parts, RESULTS_UNROLLED)}")
        with out.block(f"for (int part = 0; part < {parts}; part++)"):
            out.line(f"const int {at} = part * {layout.lanes} + lane;")
            ragged = layout.outputs % layout.lanes
            with guard(f"{at} < {layout.outputs}" if ragged else "", out):
                if layout.tiles > 1:
                    kind = index_type(across.row.extent)
                    out.line(f"const {kind} {name} = {self.tile_first} + {at};")
                    last = across.row.extent % layout.outputs
                    live = _both(live, f"{name} < {across.row.extent}" if last else "")
                with unrolled("r", layout.rows, out):
                    self._result(step, at, live)

    def _result(self, step: str, at: str, live: str) -> None:
        layout, out, down = self.layout, self.out, self.windows.down
        across, env = self.windows.across, self.env
        if down is not None:
            name = env.variables[down.row]
            where = _sum(self._first_row(step), "r" if layout.rows > 1 else "") or "0"
            out.line(f"const {index_type(down.row.extent)} {name} = {where};")
            ragged = down.row.extent % layout.block_rows
            live = _both(live, f"{name} < {down.row.extent}" if ragged else "")
        place, tap = _sum(_times(at, across.stride), layout.start), env.variables[across.col]
        refs = {}
        for f in self.folds:
            element = self._shared(f, _buffer(step), "group", "r", place)
            out.line(f"{f.acc.c_type} {f.acc.name} = {element};")
            further = _sum(place, _times(tap, across.dilation))
            element = self._shared(f, _buffer(step), "group", "r", further)
            with _folding(tap, across, out):
                out.line(f"{f.acc.name} = {f.op(f.acc.name, element)};")
            refs[f.acc.fold.name] = named(f.acc, f.acc.name, env, out)
        grid = Threads(
            "window", layout.tile.threads, 1, 1, 1, "0", "", live, VectorAxis(None, 1)
        )
        single = replace(self.kernel, phases=self.kernel.phases[1:])
        Reduction(single, grid, out, "").write(env.with_refs(refs))


def _scope(name: str, count: int, out: Writer) -> AbstractContextManager[None]:
    """An unrolled loop, or a block where it has one turn."""
    return unrolled(name, count, out) if count > 1 else out.block("")


def _buffer(step: str) -> str:
    return "0" if step == "0" else f"{step} % 2"


def _folding(tap: str, slide: Slide, out: Writer) -> AbstractContextManager[None]:
    """The loop over a window's places but its first."""
    if slide.col.extent <= LARGEST_UNROLLED:
        out.line("#pragma unroll")
    return out.block(f"for (int {tap} = 1; {tap} < {slide.col.extent}; {tap}++)")


def _element(name: str, *indices: tuple[str | int, int]) -> str:
    """`name[index]...` for (index, extent) pairs; dimensions of one element are left out."""
    return name + "".join(f"[{at}]" for at, extent in indices if extent > 1)


def _sum(*terms: str | int) -> str:
    return " + ".join(str(t) for t in terms if t)


def _times(name: str, factor: int) -> str:
    return name if factor == 1 else f"{name} * {factor}"


def _both(*conditions: str) -> str:
    return " && ".join(c for c in conditions if c)
