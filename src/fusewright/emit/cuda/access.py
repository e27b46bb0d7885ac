"""Vector memory accesses of emitted CUDA: which loads are fetched at once, before they are used.

A thread owns `width` neighbouring points along one axis. A load whose offset moves with that axis
becomes one access of up to 16 bytes when it is aligned, one scalar when it does not move, and
single loads per lane otherwise. All fetches of a chunk are issued before the first is used, so that
many bytes are in flight.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

from fusewright.emit.cindex import is_wide
from fusewright.emit.cstyle import Env, evaluate, load_offset
from fusewright.emit.ctext import ADD, LAND, Text, Writer, c_type
from fusewright.ir import index as ix
from fusewright.ir.body import Coord, Expr, Guarded, Load, Ref, walk
from fusewright.ir.index import Conds, Index, Var
from fusewright.ir.kernel import Store

FetchKind = Literal["vector", "uniform", "lanes"]
Guards = tuple[tuple[Conds, bool], ...]


@dataclass(frozen=True, slots=True)
class VectorAxis:
    """`width` neighbouring points along `axis` belong to one thread."""

    axis: Var | None
    width: int

    def kind(self, offset: Index) -> FetchKind:
        """How the lanes of a thread see `offset`."""
        if self.width == 1 or self.axis is None:
            return "uniform"
        q, lane = Var("q", max(self.axis.extent // self.width, 1)), Var("v", self.width)
        split = ix.substitute(offset, {self.axis: _times(q, self.width) + lane})
        if lane not in ix.variables(split):
            return "uniform"
        constant, terms = ix.parts(split - lane)
        aligned = constant % self.width == 0 and all(c % self.width == 0 for c, _ in terms)
        if ix.coefficient(split, lane) == 1 and aligned:
            return "vector"
        return "lanes"

    def is_uniform(self, conds: Conds) -> bool:
        """Whether all lanes agree on the conditions."""
        return all(self.kind(c.x) == "uniform" for c in conds)


def _times(q: Var, width: int) -> Index:
    return q * width if q.extent > 1 else ix.const(0)


@dataclass(frozen=True, slots=True)
class Fetch:
    """A load that is issued before its chunk is computed, into registers called `name`."""

    load: Load
    kind: FetchKind
    guards: Guards
    name: str

    def value(self, slot: str) -> Text:
        """The fetched value as bodies see it, in lane `v` of a vector."""
        lane = "" if self.kind == "uniform" else "[v]"
        return Text(f"{self.name}{slot}{lane}")


def guarded_loads(bodies: Iterable[Expr]) -> dict[Load, Guards | None]:
    """Every load and the guards around it; None where several different guards lead to it."""
    found: dict[Load, set[Guards]] = {}
    seen: set[tuple[Expr, Guards]] = set()
    stack: list[tuple[Expr, Guards]] = [(b, ()) for b in reversed(list(bodies))]
    while stack:
        e, guards = stack.pop()
        if (e, guards) in seen:
            continue
        seen.add((e, guards))
        if isinstance(e, Load):
            found.setdefault(e, set()).add(guards)
        if isinstance(e, Guarded):
            stack.append((e.otherwise, (*guards, (e.conds, False))))
            stack.append((e.x, (*guards, (e.conds, True))))
        else:
            stack.extend((o, guards) for o in reversed(e.operands))
    return {e: _one_path(paths) for e, paths in found.items()}


def index_variables(e: Load) -> tuple[Var, ...]:
    """The loop variables that decide where a load reads, also through the indices of a gather."""
    parts = list(walk(e))
    indices = [x.offset for x in parts if isinstance(x, Load)]
    return ix.variables(*indices, *(x.index for x in parts if isinstance(x, Coord)))


def _one_path(paths: set[Guards]) -> Guards | None:
    if () in paths:
        return ()
    return next(iter(paths)) if len(paths) == 1 else None


def plan_fetches(
    bodies: Sequence[Expr],
    axis: VectorAxis,
    env: Env,
    admit: Callable[[Load, Guards], bool] = lambda load, guards: True,
) -> tuple[Fetch, ...]:
    """The loads of the bodies that can be issued early.

    Not those under several different guards, nor gathers whose index differs between lanes.

    `admit` may leave out more of them.
    """
    out = []
    for e, guards in guarded_loads(bodies).items():
        if guards is None or e in env.loaded or not admit(e, guards):
            continue
        kind = axis.kind(e.offset)
        if e.indirect:
            kind = gather_kind(e, axis)
            if kind is None or guards:
                continue
        elif not all(axis.is_uniform(conds) for conds, _ in guards):
            kind = "lanes"
        out.append(Fetch(e, kind, guards, env.names.fresh(f"{env.pointers[e.buffer]}_in")))
    order = {e: n for n, e in enumerate(walk(*bodies))}
    return tuple(sorted(out, key=lambda f: order[f.load]))  # an index before what it gathers


def gather_kind(e: Load, axis: VectorAxis) -> FetchKind | None:
    """How a gather can be fetched early: its index must be the same for all lanes of a vector."""
    parts = list(walk(*(x for x, _ in e.indirect)))
    if any(isinstance(x, Guarded | Ref) for x in parts):
        return None
    offsets = [x.offset for x in parts if isinstance(x, Load)]
    offsets += [x.index for x in parts if isinstance(x, Coord)]
    if any(axis.kind(x) != "uniform" for x in offsets):
        return None
    kind = axis.kind(e.offset)
    aligned = all(stride % axis.width == 0 for _, stride in e.indirect)
    return kind if kind == "uniform" or (kind == "vector" and aligned) else None


def loaded(fetches: Iterable[Fetch], slot: str) -> dict[Expr, Text]:
    """What bodies read instead of the fetched loads."""
    return {f.load: f.value(slot) for f in fetches}


def fetch_type(f: Fetch, axis: VectorAxis) -> str:
    """The type of the registers of one fetch."""
    element = c_type(f.load.dtype, "cuda")
    return element if f.kind == "uniform" else f"fw_vec<{element}, {axis.width}>"


def declare_fetches(fetches: Iterable[Fetch], axis: VectorAxis, slots: int, out: Writer) -> None:
    """Registers for `slots` chunks."""
    for f in fetches:
        count = f"[{slots}]" if slots > 1 else ""
        out.line(f"{fetch_type(f, axis)} {f.name}{count};")


def write_fetches(
    fetches: Iterable[Fetch], axis: VectorAxis, slot: str, env: Env, out: Writer, declare: bool
) -> None:
    """Issues the loads of one chunk into `slot`; unguarded ones are declared here if `declare`."""
    for f in fetches:
        kind = fetch_type(f, axis)
        target = f"{f.name}{slot}"
        access = "" if f.kind == "lanes" else _access(f, axis, env, out)
        if declare and not f.guards and f.kind != "lanes":
            target = f"const {kind} {target}"
        elif declare:
            out.line(f"{kind} {target};")
        if f.kind == "lanes":
            _fetch_lanes(f, axis, target, env, out)
            continue
        cond = guards_text(f.guards, env)
        guard = f"if ({cond}) " if cond else ""
        out.line(f"{guard}{target} = {access};")
        env = env.with_loaded({f.load: f.value(slot)})


def _access(f: Fetch, axis: VectorAxis, env: Env, out: Writer) -> str:
    offset = load_offset(f.load, env, out)
    if f.kind == "vector":
        return f"fw_load<{axis.width}>({address(env.pointers[f.load.buffer], offset)})"
    return env.element(f.load.buffer, offset).code


def address(pointer: str, offset: Text) -> str:
    """`pointer + offset` as an argument."""
    return f"{pointer} + {offset.at(ADD)}" if offset.code != "0" else pointer


def _fetch_lanes(f: Fetch, axis: VectorAxis, target: str, env: Env, out: Writer) -> None:
    def one(lane_env: Env) -> None:
        cond = guards_text(f.guards, lane_env)
        guard = f"if ({cond}) " if cond else ""
        out.line(f"{guard}{target}[v] = {_access(f, axis, lane_env, out)};")

    lane_loop(axis, env, out, one)


def guards_text(guards: Guards, env: Env) -> str:
    """The conjunction of the guards as C; empty when there is none."""
    parts = []
    for conds, holds in guards:
        text = env.index.conds(conds)
        parts.append(text.at(LAND + 1) if holds else f"!({text.code})")
    return " && ".join(parts)


@contextmanager
def guard(condition: str, out: Writer) -> Iterator[None]:
    """`if (condition) { ... }`, or nothing around the inside when the condition is empty."""
    if not condition:
        yield
        return
    with out.block(f"if ({condition})"):
        yield


def unrolled(name: str, count: int, out: Writer) -> AbstractContextManager[None]:
    """`#pragma unroll for (name < count) { ... }`; the inside alone when count is 1."""
    if count == 1:
        return nullcontext()
    out.line("#pragma unroll")
    return out.block(f"for (int {name} = 0; {name} < {count}; {name}++)")


def lane_loop(axis: VectorAxis, env: Env, out: Writer, body: Callable[[Env], object]) -> None:
    """`body` for each lane `v` of the vector; the axis variable has the lane's value inside."""
    if axis.width == 1 or axis.axis is None:
        body(env)
        return
    base = env.variables[axis.axis]
    name = env.names.fresh(f"{base}_v")
    kind = "long long" if is_wide(0, axis.axis.extent) else "int"
    with unrolled("v", axis.width, out), out.declared(name, f"const {kind} {name} = {base} + v;"):
        body(env.with_variables({axis.axis: name}))


def write_lanes(
    bodies: Sequence[Expr],
    use: Callable[[Sequence[Text], Env], object],
    stores: Sequence[Store],
    axis: VectorAxis,
    env: Env,
    out: Writer,
) -> None:
    """One pass over the lanes: `bodies` go to `use`, the stores' values to their buffers.

    All are computed together, so that what they share is computed once. Aligned neighbours are
    collected and written by one access.
    """
    packed = {
        s: env.names.fresh(f"{env.pointers[s.buffer]}_vec")
        for s in stores
        if axis.kind(s.offset) == "vector" and axis.is_uniform(s.inside)
    }
    for s, name in packed.items():
        out.line(f"fw_vec<{c_type(s.body.dtype, 'cuda')}, {axis.width}> {name};")

    def one(lane_env: Env) -> None:
        values = evaluate([*bodies, *(s.body for s in stores)], lane_env, out)
        use(values[: len(bodies)], lane_env)
        for s, value in zip(stores, values[len(bodies) :], strict=True):
            if s in packed:
                out.line(f"{packed[s]}[v] = {value.code};")
            else:
                at, where = lane_env.index.text(s.offset).code, _where(s, lane_env)
                out.line(f"{where}{env.pointers[s.buffer]}[{at}] = {value.code};")

    lane_loop(axis, env, out, one)
    for s, name in packed.items():
        target = address(env.pointers[s.buffer], env.index.text(s.offset))
        out.line(f"{_where(s, env)}fw_store<{axis.width}>({target}, {name});")


def _where(s: Store, env: Env) -> str:
    """The condition of a store, if it has one."""
    return f"if ({env.index.conds(s.inside).code}) " if s.inside else ""


def nothing(values: Sequence[Text], env: Env) -> None:
    """For `write_lanes` without bodies."""


def usable_width(wanted: int, extent: int) -> int:
    """The largest power of two up to `wanted` that divides the extent of the vector axis."""
    width = 1
    while width * 2 <= wanted and extent % (width * 2) == 0:
        width *= 2
    return width
