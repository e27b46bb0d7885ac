"""Accumulators of emitted C++: one array element per vector lane, flushed into totals.

Statements that declare, update, flush and finish the folds of a phase; the loops around them are
in `rows` and `columns`. float32 sums are totalled in double, so that their error does not
grow with the length (blocked summation: N. J. Higham, "The accuracy of floating point summation",
1993).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fusewright.emit.cindex import is_wide
from fusewright.emit.common import fold_identity
from fusewright.emit.cstyle import Env
from fusewright.emit.ctext import TERNARY, Text, Writer, c_type, memory_type
from fusewright.emit.spell import compute_c_type, convert
from fusewright.ir.dtypes import BOOL, FLOAT32, FLOAT64, DType
from fusewright.ir.kernel import Fold, Phase


@dataclass(frozen=True, slots=True)
class Accumulator:
    """Names of one fold's lane array and total; the `_at` names hold positions (argmax, argmin).

    `blocked` when a total collects what blocks of a row give. `flagged` when a loop folds an
    extremum of floats by OpenMP's own operator, which compilers combine in vectors, and notes apart
    whether there was a NaN.
    """

    fold: Fold
    name: str
    blocked: bool = False
    flagged: bool = False

    @property
    def lanes(self) -> str:
        return f"{self.name}_lanes"

    @property
    def partial(self) -> str:
        """The variable of a row's loop: the result itself, unless blocks or types stand between."""
        final = not self.blocked and self.dtype == self.fold.dtype
        return self.name if final else f"{self.name}_part"

    @property
    def total(self) -> str:
        return f"{self.name}_total"

    @property
    def kind(self) -> str:
        """The kind of the fold; the larger of two bools is their disjunction."""
        if self.fold.dtype == BOOL:
            return {"max": "any", "min": "all"}.get(self.fold.kind, self.fold.kind)
        return self.fold.kind

    @property
    def operator(self) -> str:
        """What an OpenMP reduction calls the fold."""
        plain = {"sum": "+", "prod": "*", "any": "|", "all": "&"}
        return self.kind if self.flagged else plain.get(self.kind, f"fw_{self.kind}")

    @property
    def counts(self) -> bool:
        """Whether a value that is folded twice gives another result."""
        return self.kind in ("sum", "prod")

    @property
    def is_arg(self) -> bool:
        return self.fold.position is not None

    @property
    def dtype(self) -> DType:
        """The type values are folded in: float32 for the 16-bit floats."""
        return compute_c_type(self.fold.dtype)

    @property
    def is_float_sum(self) -> bool:
        return self.fold.kind == "sum" and self.dtype == FLOAT32

    @property
    def is_float_extremum(self) -> bool:
        return self.kind in ("max", "min") and self.dtype.is_float

    @property
    def total_dtype(self) -> DType:
        return FLOAT64 if self.is_float_sum else self.dtype

    @property
    def identity(self) -> str:
        return fold_identity(self.fold)

    @property
    def at_type(self) -> str:
        x = self.fold.position
        return "int64_t" if x is not None and is_wide(x.lo, x.hi) else "int"

    @property
    def last_position(self) -> str:
        return "INT64_MAX" if self.at_type == "int64_t" else "INT32_MAX"


def accumulators(phase: Phase, env: Env) -> tuple[Accumulator, ...]:
    """Fresh names for the folds of a phase."""
    return tuple(Accumulator(f, env.names.fresh(f.name)) for f in phase.folds)


def combine(kind: str, a: str, b: str) -> str:
    """The statement that folds `b` into `a`; of an extremum so that the next waits for less."""
    match kind:
        case "sum":
            return f"{a} += {b};"
        case "prod":
            return f"{a} *= {b};"
        case "any":
            return f"{a} |= {b};"
        case "all":
            return f"{a} &= {b};"
        case _:
            return f"{a} = fw_{kind}imum({b}, {a});"


def declare(acc: Accumulator, array: str, count: int, dtype: DType, out: Writer) -> None:
    """`T array[count]` filled with the identity, and the array of positions."""
    filled(memory_type(dtype, "cpu"), array, count, acc.identity, out)
    if acc.is_arg:
        filled(acc.at_type, f"{array}_at", count, acc.last_position, out)


def filled(kind: str, array: str, count: int, value: str, out: Writer) -> None:
    """`kind array[count]`, every element `value`."""
    if value in ("0.0f", "0", "false", "0.0"):
        out.line(f"{kind} {array}[{count}] = {{}};")
    else:
        out.line(f"{kind} {array}[{count}];")
        out.line(f"for ({kind}& start : {array}) start = {value};")


def reduction_clauses(accs: Sequence[Accumulator]) -> str:
    """The OpenMP clauses that let a loop fold into the partial results in any order."""
    named: dict[str, list[str]] = {}
    for acc in accs:
        named.setdefault(acc.operator, []).append(acc.partial)
        if acc.flagged:
            named.setdefault("|", []).append(f"{acc.partial}_nan")
    return "".join(f" reduction({op} : {', '.join(names)})" for op, names in named.items())


def declare_partial(acc: Accumulator, out: Writer) -> None:
    """The variable a row's loop folds into."""
    out.line(f"{memory_type(acc.dtype, 'cpu')} {acc.partial} = {acc.identity};")
    if acc.flagged:
        out.line(f"int {acc.partial}_nan = 0;")


def _fold_flagged(acc: Accumulator, value: Text, out: Writer) -> None:
    """An extremum that passes over NaN, and the flag that there was one."""
    here, sign = f"{acc.partial}_here", "<" if acc.kind == "max" else ">"
    out.line(f"const {c_type(acc.dtype, 'cpu')} {here} = {value.code};")
    out.line(f"{acc.partial} = {acc.partial} {sign} {here} ? {here} : {acc.partial};")
    out.line(f"{acc.partial}_nan |= {here} != {here};")


def settle_partial(acc: Accumulator, out: Writer) -> None:
    """After the loop: a NaN is the extremum."""
    if acc.flagged:
        out.line(f"{acc.partial} = {acc.partial}_nan ? FW_NAN : {acc.partial};")


def declare_scalar(acc: Accumulator, out: Writer) -> None:
    """The scalar total of a row, and its position."""
    start = "0.0" if acc.is_float_sum else acc.identity
    out.line(f"{memory_type(acc.total_dtype, 'cpu')} {acc.total} = {start};")
    if acc.is_arg:
        out.line(f"{acc.at_type} {acc.total}_at = {acc.last_position};")


def fold_values(
    accs: Sequence[Accumulator],
    values: Sequence[Text],
    place: str,
    env: Env,
    out: Writer,
    counted: str = "",
) -> None:
    """Adds the values of the folds' bodies at one point to the accumulators.

    `place` is "[lane]" for arrays of lanes, "" for the one variable of a row. Where the condition
    `counted` does not hold, another point of the loop has folded the value already.
    """
    for acc, value in zip(accs, values, strict=True):
        value = convert(value, acc.fold.body.dtype, acc.dtype, "cpu")
        target = f"{acc.lanes}{place}" if place else acc.partial
        if acc.flagged:
            _fold_flagged(acc, value, out)
        elif acc.fold.position is None:
            text = value.at(TERNARY)
            if counted and acc.counts:
                # Computed in any case: compilers make poor vectors of a branch.
                here = env.names.fresh(f"{acc.name}_here")
                out.line(f"const {c_type(acc.dtype, 'cpu')} {here} = {value.code};")
                text = f"{counted} ? {here} : {acc.identity}"
            out.line(combine(acc.kind, target, text))
        else:
            at = env.index.text(acc.fold.position).code
            _take_best(acc, value.code, at, target, f"{acc.lanes}_at{place}", out)


def _take_best(acc: Accumulator, x: str, x_at: str, best: str, best_at: str, out: Writer) -> None:
    """Replaces (best, best_at) by (x, x_at) where that goes first."""
    out.line(f"fw_arg<{_kinds(acc)}>({x}, {x_at}, {best}, {best_at});")


def _kinds(acc: Accumulator) -> str:
    up = "true" if acc.fold.kind == "argmax" else "false"
    return f"{up}, {memory_type(acc.dtype, 'cpu')}, {acc.at_type}"


def flush_to_scalar(acc: Accumulator, out: Writer) -> None:
    """Combines the lanes pairwise and adds the result to the row's total."""
    if acc.is_arg:
        out.line(f"fw_lanes_arg<{_kinds(acc)}>({acc.lanes}, {acc.lanes}_at);")
        x, x_at = f"{acc.lanes}[0]", f"{acc.lanes}_at[0]"
        _take_best(acc, x, x_at, acc.total, f"{acc.total}_at", out)
        return
    out.line(combine(acc.kind, acc.total, combined_lanes(acc)))


def flush_partial(acc: Accumulator, out: Writer) -> None:
    """Adds a block's result to the row's total."""
    out.line(combine(acc.kind, acc.total, acc.partial))


def combined_lanes(acc: Accumulator) -> str:
    """The call that combines the lanes of a row."""
    return f"fw_lanes_{acc.kind}({acc.lanes})"


def flush_to_lanes(acc: Accumulator, width: str, out: Writer) -> None:
    """Adds each lane to its own total."""
    with out.block(f"for (int lane = 0; lane < {width}; lane++)"):
        x, x_at = f"{acc.lanes}[lane]", f"{acc.lanes}_at[lane]"
        if acc.is_arg:
            _take_best(acc, x, x_at, f"{acc.total}[lane]", f"{acc.total}_at[lane]", out)
        else:
            out.line(combine(acc.kind, f"{acc.total}[lane]", x))


def result(acc: Accumulator, total: Text, dtype: DType) -> Text:
    """A total of type `dtype` in the type of the fold's result; a position stays as it is."""
    return total if acc.is_arg else convert(total, dtype, acc.fold.dtype, "cpu")
