"""Accumulators of emitted CUDA: registers per item and vector lane, combined across threads.

Statements that declare, update and combine folds; the loops around them are in `reduce`.
Independent accumulators, combined pairwise, keep both the latency and the rounding error low.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fusewright.emit.cindex import is_wide
from fusewright.emit.common import fold_identity
from fusewright.emit.cstyle import Env, evaluate
from fusewright.emit.ctext import LAND, LOR, TERNARY, Text, Writer, c_type
from fusewright.emit.spell import compute_c_type, convert
from fusewright.ir.dtypes import DType
from fusewright.ir.kernel import Fold, Phase

from .access import unrolled


@dataclass(frozen=True, slots=True)
class Registers:
    """The accumulators of one fold: `name` with `items` x `width` elements (1 x 1: a scalar)."""

    fold: Fold
    name: str
    items: int
    width: int

    @property
    def dtype(self) -> DType:
        """The type values are folded in: float32 for the 16-bit floats."""
        return compute_c_type(self.fold.dtype)

    @property
    def is_arg(self) -> bool:
        return self.fold.position is not None

    @property
    def at_type(self) -> str:
        x = self.fold.position
        return "long long" if x is not None and is_wide(x.lo, x.hi) else "int"

    @property
    def c_type(self) -> str:
        value = c_type(self.dtype, "cuda")
        return f"fw_best<{value}, {self.at_type}>" if self.is_arg else value

    @property
    def identity(self) -> str:
        value = fold_identity(self.fold)
        if not self.is_arg:
            return value
        last = "9223372036854775807LL" if self.at_type == "long long" else "2147483647"
        return f"{self.c_type}{{{value}, {last}}}"

    @property
    def op(self) -> str:
        return f"fw_op_{self.fold.kind}"

    @property
    def dims(self) -> str:
        return "".join(f"[{n}]" for n in (self.items, self.width) if n > 1)

    @property
    def slot(self) -> str:
        """The element of the current item and lane."""
        item = "[item]" if self.items > 1 else ""
        return self.name + item + ("[v]" if self.width > 1 else "")

    def result(self, total: Text) -> Text:
        """A combined value in the type of the fold's result; of a pair the position."""
        if self.is_arg:
            return Text(f"{total.code}.at")
        return convert(total, self.dtype, self.fold.dtype, "cuda")


def registers(phase: Phase, items: int, width: int, env: Env) -> tuple[Registers, ...]:
    """Fresh names for the folds of a phase."""
    return tuple(
        Registers(f, env.names.fresh(f"{f.name}_acc"), items, width) for f in phase.folds
    )


def declare(acc: Registers, out: Writer) -> None:
    """Accumulators at the identity."""
    if not acc.dims:
        out.line(f"{acc.c_type} {acc.name} = {acc.identity};")
    elif acc.identity in ("0.0f", "0.0", "0", "false"):
        out.line(f"{acc.c_type} {acc.name}{acc.dims} = {{}};")
    else:
        out.line(f"{acc.c_type} {acc.name}{acc.dims};")
        out.line(f"fw_fill({acc.name}, {_typed(acc)});")


def _typed(acc: Registers) -> str:
    """The identity as an argument that deduces the accumulator's type."""
    if acc.is_arg or acc.dtype.kind != "int":
        return acc.identity
    return f"({acc.c_type}){acc.identity}"


def update(phase: Phase, accs: Sequence[Registers], env: Env, out: Writer) -> None:
    """Evaluates the bodies of the folds at one point and folds them in."""
    fold_values(phase, accs, evaluate([f.body for f in phase.folds], env, out), env, out)


def fold_values(
    phase: Phase, accs: Sequence[Registers], values: Sequence[Text], env: Env, out: Writer
) -> None:
    """Folds the values of the bodies at one point in."""
    for acc, fold, value in zip(accs, phase.folds, values, strict=True):
        value = convert(value, fold.body.dtype, acc.dtype, "cuda")
        out.line(_update_text(acc, value, env))


def _update_text(acc: Registers, value: Text, env: Env) -> str:
    x = acc.slot
    position = acc.fold.position
    if position is not None:
        pair = f"{acc.c_type}{{{value.code}, {env.index.text(position).code}}}"
        return f"{x} = fw_{acc.fold.kind}({x}, {pair});"
    match acc.fold.kind:
        case "sum":
            return f"{x} += {value.code};"
        case "prod":
            return f"{x} *= {value.at(TERNARY)};"
        case "any":
            return f"{x} = {x} || {value.at(LOR + 1)};"
        case "all":
            return f"{x} = {x} && {value.at(LAND + 1)};"
        case kind:
            call = f"<{acc.c_type}>" if not acc.dtype.is_float else ""
            return f"{x} = fw_{kind}imum{call}({x}, {value.code});"


def combined_items(acc: Registers) -> str:
    """All accumulators of one thread as one value."""
    return f"fw_fold_items<{acc.op}>({acc.name})" if acc.dims else acc.name


def combined_item_lanes(acc: Registers) -> str:
    """The accumulators of one thread for vector lane `v` as one value."""
    if acc.items == 1:
        return acc.name + ("[v]" if acc.width > 1 else "")
    return f"fw_fold_items<{acc.op}>({acc.name}{', v' if acc.width > 1 else ''})"


def fold_row(accs: Sequence[Registers], lanes: int, env: Env, out: Writer) -> dict[str, Text]:
    """Combines over all threads of a row; every thread gets the results, references to them."""
    if lanes > 32:
        own = fold_warps(accs, lanes // 32, env, out)
        return {acc.fold.name: named(acc, value, env, out) for acc, value in own.items()}
    refs = {}
    for acc in accs:
        value = combined_items(acc)
        value = f"fw_fold_lanes<{acc.op}, {lanes}>({value})" if lanes > 1 else value
        refs[acc.fold.name] = named(acc, value, env, out)
    return refs


def named(acc: Registers, value: str, env: Env, out: Writer) -> Text:
    """A declared name for the combined value of a fold; returns the fold's result."""
    name = env.names.fresh(acc.fold.name)
    if acc.is_arg:
        out.line(f"const {acc.c_type} {name} = {value};")
        return acc.result(Text(name))
    kind = c_type(acc.fold.dtype, "cuda")
    out.line(f"const {kind} {name} = {acc.result(Text(value)).code};")
    return Text(name)


def fold_warps(
    accs: Sequence[Registers], warps: int, env: Env, out: Writer
) -> dict[Registers, str]:
    """Warps combine by shuffles, then through one value per warp in shared memory.

    Returns the expressions of the block's results, for every thread to evaluate.
    """
    shared = {acc: env.names.fresh(f"{acc.fold.name}_warps") for acc in accs}
    for acc, name in shared.items():
        out.line(f"__shared__ {acc.c_type} {name}[{warps}];")
    values = {}
    for acc in accs:
        values[acc] = env.names.fresh(f"{acc.fold.name}_warp")
        fold = f"fw_fold_lanes<{acc.op}, 32>({combined_items(acc)})"
        out.line(f"const {acc.c_type} {values[acc]} = {fold};")
    with out.block("if (threadIdx.x % 32 == 0)"):
        for acc, name in shared.items():
            out.line(f"{name}[threadIdx.x / 32] = {values[acc]};")
    out.line("__syncthreads();")
    return {acc: f"fw_fold_warps<{acc.op}>({name})" for acc, name in shared.items()}


def fold_columns(
    accs: Sequence[Registers], groups: int, threads: int, env: Env, out: Writer
) -> dict[str, Text]:
    """Combines over the groups of threads; `threads` of one group have a vector of columns each.

    The results are per vector lane, known to every group.
    """
    shared = {}
    for acc in accs if groups > 1 else ():
        shared[acc] = env.names.fresh(f"{acc.fold.name}_groups")
        out.line(f"__shared__ {acc.c_type} {shared[acc]}[{groups}][{threads * acc.width}];")
    if shared:
        with unrolled("v", accs[0].width, out):
            for acc, name in shared.items():
                at = _place(threads, acc.width)
                out.line(f"{name}[group][{at}] = {combined_item_lanes(acc)};")
        out.line("__syncthreads();")
    refs = {}
    for acc in accs:
        value = combined_item_lanes(acc)
        if groups > 1:
            value = f"fw_fold_groups<{acc.op}>({shared[acc]}, {_place(threads, acc.width)})"
        refs[acc.fold.name] = _named_lanes(acc, value, env, out)
    return refs


def _place(threads: int, width: int) -> str:
    """Where a thread's lane `v` stands in a group's row of shared memory: no bank conflicts."""
    thread = f"threadIdx.x % {threads}"
    return f"v * {threads} + {thread}" if width > 1 else thread


def _named_lanes(acc: Registers, value: str, env: Env, out: Writer) -> Text:
    if acc.width == 1:
        return named(acc, value, env, out)
    name = env.names.fresh(acc.fold.name)
    kind = acc.c_type if acc.is_arg else c_type(acc.fold.dtype, "cuda")
    out.line(f"{kind} {name}[{acc.width}];")
    text = value if acc.is_arg else acc.result(Text(value)).code
    with unrolled("v", acc.width, out):
        out.line(f"{name}[v] = {text};")
    return acc.result(Text(f"{name}[v]")) if acc.is_arg else Text(f"{name}[v]")
