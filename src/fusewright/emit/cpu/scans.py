"""Running folds of emitted C++: one carry per row, stepped along the columns in their order.

Statements that declare and step the carries of a phase's scans; the loops around them are in
`rows` and `columns`, but for sums and products along a row (`prefix_loop`), of which compilers
make vectors. Carries of float32 sums, products and log-sum-exps are doubles, as
ATen's are, so that their error does not grow with the length.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fusewright.emit.cindex import is_wide
from fusewright.emit.cstyle import Env, evaluate
from fusewright.emit.ctext import TERNARY, Text, Writer, c_type, literal, memory_type
from fusewright.emit.spell import compute_c_type, convert
from fusewright.ir.body import Ref, walk
from fusewright.ir.dtypes import BOOL, FLOAT32, FLOAT64, DType
from fusewright.ir.kernel import Phase, Prefix
from fusewright.ir.scalar import identity

from .folds import combine, filled
from .loops import assign_stores, loop_type

# What compilers make prefixes of in vectors, and how OpenMP calls it.
OPERATORS = {"sum": "+", "prod": "*"}


@dataclass(frozen=True, slots=True)
class Carry:
    """The carry of one scan: `name`, and `name`_at if it has positions; arrays if `lanes` > 0."""

    scan: Prefix
    name: str
    lanes: int

    @property
    def dtype(self) -> DType:
        """The type the carry is stepped in."""
        dtype = compute_c_type(self.scan.dtype)
        wide = self.scan.kind in ("sum", "prod", "logsumexp") and dtype == FLOAT32
        return FLOAT64 if wide else dtype

    def at(self, place: str) -> str:
        """The carry of the current lane."""
        return f"{self.name}{place if self.lanes else ''}"

    def position_at(self, place: str) -> str:
        """Its position."""
        return f"{self.name}_at{place if self.lanes else ''}"

    @property
    def at_type(self) -> str:
        x = self.scan.position
        return "int64_t" if x is not None and is_wide(x.lo, x.hi) else "int"


def declare_carries(phase: Phase, lanes: int, env: Env, out: Writer) -> tuple[Carry, ...]:
    """The carries of a phase's scans at the identity: one for each lane, or (0) a single one."""
    carries = [Carry(s, env.names.fresh(f"{s.name}_carry"), lanes) for s in phase.scans]
    for c in carries:
        start = literal(identity(c.scan.kind, c.dtype), c.dtype).code
        _declare(memory_type(c.dtype, "cpu"), c.name, lanes, start, out)
        if c.scan.position is not None:
            _declare(c.at_type, f"{c.name}_at", lanes, "0", out)
    return tuple(carries)


def _declare(kind: str, name: str, lanes: int, start: str, out: Writer) -> None:
    if lanes:
        filled(kind, name, lanes, start, out)
    else:
        out.line(f"{kind} {name} = {start};")


def write_scans(owned: Sequence[Carry], place: str, env: Env, out: Writer) -> Env:
    """Steps the scans at one point, in lane `place`; returns `env` knowing their values here."""
    for carry in owned:
        s = carry.scan
        value = evaluate([s.body], env, out)[0]
        name = env.names.fresh(s.name)
        line = f"const {c_type(s.result_dtype, 'cpu')} {name} = {_current(carry, place)};"
        step = _step(carry, convert(value, s.body.dtype, carry.dtype, "cpu"), place, env)
        out.extend([line, step] if s.exclusive else [step, line])
        env = env.with_refs({s.name: Text(name)})
    return env


def _current(carry: Carry, place: str) -> str:
    if carry.scan.position is not None:
        return carry.position_at(place)
    return convert(Text(carry.at(place)), carry.dtype, carry.scan.dtype, "cpu").code


def _step(carry: Carry, x: Text, place: str, env: Env) -> str:
    s, target = carry.scan, carry.at(place)
    if s.position is not None:
        kinds = f"{'true' if s.kind == 'argmax' else 'false'}, {memory_type(carry.dtype, 'cpu')}"
        at = env.index.text(s.position).code
        best = f"{target}, {carry.position_at(place)}"
        return f"fw_running_arg<{kinds}, {carry.at_type}>({x.code}, {at}, {best});"
    if s.kind == "logsumexp":
        return f"{target} = fw_logaddexp({target}, {x.code});"
    kind = {"max": "any", "min": "all"}.get(s.kind, s.kind) if carry.dtype == BOOL else s.kind
    return combine(kind, target, x.at(TERNARY))


def has_prefix_loop(phase: Phase) -> bool:
    """Whether `prefix_loop` can write the phase: sums and products apart from each other."""
    names = {s.name for s in phase.scans}
    inside = walk(*(s.body for s in phase.scans))
    return (
        not (phase.folds or phase.keeps)
        and all(s.kind in OPERATORS and s.dtype != BOOL for s in phase.scans)
        and len({s.exclusive for s in phase.scans}) == 1
        and not any(isinstance(e, Ref) and e.name in names for e in inside)
    )


def prefix_loop(phase: Phase, owned: Sequence[Carry], env: Env, out: Writer) -> None:
    """The loop of a phase with `has_prefix_loop`, by OpenMP's scan directive: its body is in two
    parts, that which steps the carries and that which reads them."""
    (v,) = phase.cols
    name = env.variables[v]
    clauses = (f"reduction(inscan, {OPERATORS[c.scan.kind]} : {c.name})" for c in owned)
    out.line(f"fw_openmp_5(simd {' '.join(clauses)})")
    up, down = f"0; {name} < {v.extent}; {name}++", f"{v.extent - 1}; {name} >= 0; {name}--"
    with out.block(f"for ({loop_type(v)} {name} = {down if phase.reverse else up})"):
        how = "exclusive" if phase.scans[0].exclusive else "inclusive"
        steps = (_step_all, _store_all) if how == "inclusive" else (_store_all, _step_all)
        steps[0](phase, owned, env, out)
        out.line(f"fw_openmp_5(scan {how}({', '.join(c.name for c in owned)}))")
        steps[1](phase, owned, env, out)


def _step_all(phase: Phase, owned: Sequence[Carry], env: Env, out: Writer) -> None:
    values = evaluate([c.scan.body for c in owned], env, out)
    for carry, value in zip(owned, values, strict=True):
        x = convert(value, carry.scan.body.dtype, carry.dtype, "cpu")
        out.line(_step(carry, x, "", env))


def _store_all(phase: Phase, owned: Sequence[Carry], env: Env, out: Writer) -> None:
    for carry in owned:
        name = env.names.fresh(carry.scan.name)
        kind = c_type(carry.scan.result_dtype, "cpu")
        out.line(f"const {kind} {name} = {_current(carry, '')};")
        env = env.with_refs({carry.scan.name: Text(name)})
    assign_stores(phase.stores, evaluate([s.body for s in phase.stores], env, out), env, out)
