"""Well-formedness of programs, checked after scheduling: types, bounds, order, completeness.

A failure is a defect of fusewright: IRError names the kernel and the rule. Nothing is repaired.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from . import body as b
from . import index as ix
from .bounds import Guards, injective, violation
from .check_graph import require, unique
from .dtypes import BOOL, DType
from .index import Index, Var
from .kernel import Buffer, Kernel, LibraryCall, Phase, Program, Store, Strided
from .scalar import OPS, result_dtype


def check_program(program: Program) -> Program:
    """The program itself, if it keeps every rule of `ir.kernel`; raises IRError otherwise.

    Every load and store is in bounds under its guards, every buffer is written completely before
    it is read or returned, types agree, names are unique.
    """
    unique("buffer names", (x.name for x in program.buffers))
    unique("step names", (s.name for s in program.steps))
    state = _State({x.name: x for x in program.buffers})
    for x in program.buffers:
        require(len(x.strides) == len(x.shape), f"buffer {x.name}: strides of another rank")
        require(all(s >= 0 for s in x.strides), f"buffer {x.name}: negative stride")
        if x.given:
            state.written[x.name] = x.size
    for step in program.steps:
        if isinstance(step, Kernel):
            _check_kernel(step, state)
        else:
            _check_call(step, state)
    for s in program.returns:
        _check_strided("return", s, state)
    for name, s in program.updates:
        _check_strided(f"update of {name}", s, state)
        target = state.buffer(name, "update")
        require(target.given, f"update of {name}, which is no input")
        require(target.shape == s.shape, f"update of {name}: shape {s.shape}")
    return program


@dataclass(slots=True)
class _State:
    """Buffers by name, and how many elements of each have been written so far."""

    buffers: Mapping[str, Buffer]
    written: dict[str, int] = field(default_factory=dict)

    def buffer(self, name: str, where: str) -> Buffer:
        require(name in self.buffers, f"{where}: there is no buffer {name!r}")
        return self.buffers[name]

    def complete(self, name: str) -> bool:
        return self.written.get(name, 0) >= self.buffers[name].size


def span(x: Buffer) -> int:
    """Elements between the first and one past the last of a buffer."""
    if not x.size:
        return 0
    return 1 + sum((n - 1) * s for n, s in zip(x.shape, x.strides, strict=True))


# ----------------------------------------------------------------------------------- library calls


def _check_call(call: LibraryCall, state: _State) -> None:
    for s in call.operands:
        _check_strided(call.name, s, state)
    for name in call.writes:
        state.written[name] = state.buffer(name, call.name).size


def _check_strided(where: str, s: Strided, state: _State) -> None:
    x = state.buffer(s.buffer, where)
    require(state.complete(s.buffer), f"{where}: {s.buffer} is read before all of it is written")
    require(len(s.shape) == len(s.strides), f"{where}: strides of another rank")
    if prod(s.shape):
        last = s.offset + sum((n - 1) * k for n, k in zip(s.shape, s.strides, strict=True))
        inside = s.offset >= 0 and last < span(x)
        require(inside, f"{where}: {s} reaches outside {s.buffer} of {span(x)} elements")


# ----------------------------------------------------------------------------------------- kernels


def _check_kernel(kernel: Kernel, state: _State) -> None:
    unique(f"{kernel.name}: parameters", (*kernel.reads, *kernel.writes))
    for name in (*kernel.reads, *kernel.writes):
        state.buffer(name, kernel.name)
    for name in kernel.reads:
        done = state.complete(name)
        require(done, f"{kernel.name} reads {name} before all of it is written")
    kept: dict[str, tuple[DType, tuple[Var, ...] | None]] = {}
    stored: dict[str, int] = {}
    for phase in kernel.phases:
        _check_phase(kernel, phase, state, kept, stored)
    for name in kernel.writes:
        require(name in stored or not kernel.row_count, f"{kernel.name} never stores to {name}")
        state.written[name] = state.written.get(name, 0) + stored.get(name, 0)


def _check_phase(
    kernel: Kernel,
    phase: Phase,
    state: _State,
    names: dict[str, tuple[DType, tuple[Var, ...] | None]],
    stored: dict[str, int],
) -> None:
    loops = (*kernel.rows, *phase.cols)
    unique(f"{kernel.name}: loop variables", (v.name for v in loops))
    for keep in phase.keeps:
        _check_body(kernel, phase, keep.body, state, names, stored)
        require(keep.name not in names, f"{kernel.name}: {keep.name} is named twice")
        names[keep.name] = (keep.body.dtype, phase.cols)
    for s in phase.scans:
        _check_body(kernel, phase, s.body, state, names, stored)
        require(len(phase.cols) == 1, f"{kernel.name}: scan {s.name} needs one column variable")
        one_way = s.reverse == phase.scans[0].reverse
        require(one_way, f"{kernel.name}: scan {s.name} runs against another of its phase")
        arg = s.kind in ("argmax", "argmin")
        require(arg == (s.position is not None), f"{kernel.name}: position of scan {s.name}")
        require(s.name not in names, f"{kernel.name}: {s.name} is named twice")
        names[s.name] = (s.result_dtype, phase.cols)
    for f in phase.folds:
        _check_body(kernel, phase, f.body, state, names, stored)
        arg = f.kind in ("argmax", "argmin")
        require(arg == (f.position is not None), f"{kernel.name}: position of fold {f.name}")
    for store in phase.stores:
        _check_body(kernel, phase, store.body, state, names, stored)
        _check_store(kernel, phase, store, state)
        points = kernel.row_count * phase.extent
        if store.inside:  # how many of the points are is not counted here
            points = min(points, span(state.buffer(store.buffer, kernel.name)))
        stored[store.buffer] = stored.get(store.buffer, 0) + points
    for f in phase.folds:
        require(f.name not in names, f"{kernel.name}: {f.name} is named twice")
        names[f.name] = (f.result_dtype, None)
    for s in phase.scans:
        del names[s.name]


def _check_store(kernel: Kernel, phase: Phase, store: Store, state: _State) -> None:
    what = f"{kernel.name} stores to {store.buffer}"
    require(store.buffer in kernel.writes, f"{what}, which is not among its writes")
    x = state.buffer(store.buffer, kernel.name)
    require(store.body.dtype == x.dtype, f"{what} a {store.body.dtype}, not {x.dtype}")
    loops = (*kernel.rows, *phase.cols)
    _check_variables(kernel.name, (store.offset, *(c.x for c in store.inside)), loops)
    guarded = kernel.anchor == "contraction" or not store.inside
    require(guarded, f"{what} under conditions, as contractions alone may")
    if kernel.row_count * phase.extent:
        at = violation(store.offset, span(x), ((store.inside, True),) if store.inside else ())
        require(at is None, f"{what} outside its {span(x)} elements: {store.offset} at {at}")
        distinct = injective(store.offset, loops, store.inside)
        require(distinct is not False, f"{what} twice at the same element: {store.offset}")


def _check_variables(where: str, xs: Sequence[Index], loops: Sequence[Var]) -> None:
    unknown = [v.name for v in ix.variables(*xs) if v not in loops]
    require(not unknown, f"{where}: variables {unknown} are not loops of the phase")


def _check_body(
    kernel: Kernel,
    phase: Phase,
    root: b.Expr,
    state: _State,
    names: Mapping[str, tuple[DType, tuple[Var, ...] | None]],
    stored: Mapping[str, int],
) -> None:
    summed = (e.k for e in b.walk(root) if isinstance(e, b.Dot))
    loops = (*kernel.rows, *phase.cols, *summed)
    points = kernel.row_count * phase.extent
    for e, guards in _guarded_walk(root):
        _check_types(kernel.name, e)
        match e:
            case b.Load():
                known = e.buffer in kernel.reads or e.buffer in stored
                require(known, f"{kernel.name} loads {e.buffer}, which is not among its reads")
                _check_variables(kernel.name, (e.offset,), loops)
                _check_load(kernel.name, e, guards, state, points)
            case b.Coord():
                _check_variables(kernel.name, (e.index,), loops)
            case b.Guarded():
                _check_variables(kernel.name, tuple(c.x for c in e.conds), loops)
            case b.Ref():
                require(e.name in names, f"{kernel.name}: {e.name} is used before it has a value")
                dtype, cols = names[e.name]
                require(dtype == e.dtype, f"{kernel.name}: {e.name} is {dtype}, not {e.dtype}")
                require(cols in (None, phase.cols), f"{kernel.name}: {e.name} has other cols")


def _guarded_walk(root: b.Expr) -> Iterator[tuple[b.Expr, Guards]]:
    """Every subexpression with the guards around it, once per distinct pair."""
    stack: list[tuple[b.Expr, Guards]] = [(root, ())]
    seen: set[tuple[b.Expr, Guards]] = set()
    while stack:
        task = stack.pop()
        if task in seen:
            continue
        seen.add(task)
        e, guards = task
        yield task
        if isinstance(e, b.Guarded):
            stack.append((e.otherwise, (*guards, (e.conds, False))))
            stack.append((e.x, (*guards, (e.conds, True))))
        else:
            stack.extend((o, guards) for o in e.operands)


def _check_load(where: str, e: b.Load, guards: Guards, state: _State, points: int) -> None:
    x = state.buffer(e.buffer, where)
    require(e.dtype == x.dtype, f"{where} loads {e.buffer} as {e.dtype}, not {x.dtype}")
    reach = 0
    for at, stride in e.indirect:
        require(isinstance(at, b.Checked), f"{where}: an indirect index of {e.buffer} unchecked")
        if isinstance(at, b.Checked):
            reach += stride * (at.extent - 1)
    if points and span(x):
        at = violation(e.offset, span(x) - reach, guards)
        require(at is None, f"{where} loads outside {e.buffer}: {e.offset} + {reach} at {at}")


def _check_types(where: str, e: b.Expr) -> None:
    match e:
        case b.Apply():
            entry = OPS.get(e.op)
            known = entry is not None and entry.arity == len(e.args)
            require(known, f"{where}: no operation {e.op} of {len(e.args)} operands")
            types = sorted({a.dtype.name for a in e.args})
            require(len(types) == 1, f"{where}: operands of {e.op} have types {types}")
            if entry is not None:
                dtype = e.args[0].dtype
                require(dtype.kind in entry.on, f"{where}: {e.op} is not defined on {dtype}")
                require(result_dtype(entry, dtype) == e.dtype, f"{where}: {e.op} gives {e.dtype}")
        case b.Choose():
            require(e.cond.dtype == BOOL, f"{where}: condition of type {e.cond.dtype}")
            same = e.a.dtype == e.b.dtype == e.dtype
            require(same, f"{where}: branches of types {e.a.dtype}, {e.b.dtype}")
        case b.Guarded():
            same = e.x.dtype == e.otherwise.dtype == e.dtype
            require(same, f"{where}: branches of types {e.x.dtype}, {e.otherwise.dtype}")
        case b.Checked():
            require(e.dtype.kind == "int", f"{where}: a checked index of type {e.dtype}")
