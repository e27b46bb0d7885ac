"""Programs as text for people: buffers, then each step with its loops and what a point computes.

Text that rebuilds a program is `ir.code`'s. `strided_code` is Python that emitted files use too.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import prod

from . import body as b
from . import index as ix
from . import offsets
from .dtypes import DType
from .graph import Device, Verbatim
from .kernel import (
    Buffer,
    Fold,
    Kernel,
    LibraryArg,
    LibraryCall,
    Phase,
    Prefix,
    Program,
    Strided,
)
from .text import INFIX, conds_text

MAX_INLINE = 100


def program_text(program: Program) -> str:
    """Every buffer with its type, every step, what is returned and what is written back."""
    buffers = {x.name: x for x in program.buffers}
    lines = [_buffer_text(x) for x in program.buffers]
    for step in program.steps:
        lines.append("")
        if isinstance(step, Kernel):
            lines += kernel_lines(step, buffers)
        else:
            lines.append(call_text(step, buffers))
    lines.append("")
    lines.append(f"return {', '.join(strided_code(s, buffers[s.buffer]) for s in program.returns)}")
    lines += [f"{name} <- {strided_code(s, buffers[s.buffer])}" for name, s in program.updates]
    return "\n".join(lines) + "\n"


def _buffer_text(x: Buffer) -> str:
    dense = x.strides == offsets.row_major(x.shape)
    strides = "" if dense else f" strides {list(x.strides)}"
    return f"{x.name}: {x.dtype}[{', '.join(map(str, x.shape))}]{strides}  {x.role}"


def kernel_lines(kernel: Kernel, buffers: Mapping[str, Buffer]) -> list[str]:
    """The kernel as a loop nest, one line per statement."""
    t = kernel.tile
    head = f"kernel {kernel.name}({', '.join((*kernel.reads, *kernel.writes))})  {kernel.anchor}"
    tile = f"threads={t.threads} vector={t.vector} items={t.items} lanes={t.lanes}"
    lines = [f"{head}  {tile}"]
    if kernel.covers:
        lines.append(f"  covers {', '.join(kernel.covers)}")
    lines.append(f"  for {_loops(kernel.rows)}:")
    for phase in kernel.phases:
        lines += [f"    {line}" for line in _phase_lines(phase, buffers)]
    return lines


def _loops(loops: Sequence[ix.Var]) -> str:
    return ", ".join(f"{v.name} < {v.extent}" for v in loops) or "one row"


def _phase_lines(phase: Phase, buffers: Mapping[str, Buffer]) -> Iterator[str]:
    indent = "  " if phase.cols else ""
    if phase.cols:
        yield f"for {_loops(phase.cols)}:"
    for keep in phase.keeps:
        yield from _statement(f"{indent}keep {keep.name} =", keep.body, buffers)
    for s in phase.scans:
        yield from _statement(f"{indent}{s.name} {_scan_sign(s)}", s.body, buffers)
    for f in phase.folds:
        yield from _statement(f"{indent}{f.name} {_fold_sign(f)}", f.body, buffers)
    for s in phase.stores:
        at = element_text(buffers[s.buffer], s.offset)
        where = f"if {conds_text(s.inside)}: " if s.inside else ""
        yield from _statement(f"{indent}{where}{at} =", s.body, buffers)


def _fold_sign(f: Fold) -> str:
    signs = {"sum": "+=", "prod": "*=", "any": "|=", "all": "&="}
    at = f" at {f.position}" if f.position is not None else ""
    return signs.get(f.kind, f"{f.kind}=") + at


def _scan_sign(s: Prefix) -> str:
    ways = ("reverse " if s.reverse else "", "exclusive " if s.exclusive else "")
    at = f" at {s.position}" if s.position is not None else ""
    return f"= {''.join(ways)}cum{s.kind}{at} of"


def _statement(head: str, root: b.Expr, buffers: Mapping[str, Buffer]) -> Iterator[str]:
    """One line; subexpressions that are shared or long come first under names v0, v1, ..."""
    uses: dict[b.Expr, int] = {}
    for e in b.walk(root):
        for o in e.operands:
            uses[o] = uses.get(o, 0) + 1
    text: dict[b.Expr, str] = {}
    indent = head[: len(head) - len(head.lstrip())]
    count = 0
    for e in b.walk(root):
        line = expr_text(e, [text[o] for o in e.operands], buffers)
        shared = uses.get(e, 0) > 1 and bool(e.operands)
        if e != root and (shared or len(line) > MAX_INLINE):
            yield f"{indent}v{count} = {line}"
            line, count = f"v{count}", count + 1
        text[e] = line
    yield f"{head} {_bare(text[root])}"


def _bare(line: str) -> str:
    """Without the brackets around a whole right-hand side."""
    depth = 0
    for k, c in enumerate(line):
        depth += (c == "(") - (c == ")")
        if not depth and k < len(line) - 1:
            return line
    return line[1:-1] if line.startswith("(") else line


def expr_text(e: b.Expr, xs: Sequence[str], buffers: Mapping[str, Buffer]) -> str:
    """One operation on operands that are text already."""
    match e:
        case b.Lit():
            return f"{e.value:.9g}" if isinstance(e.value, float) else str(e.value).lower()
        case b.Load():
            extra = "".join(f" + {s}*{x}" for x, (_, s) in zip(xs, e.indirect, strict=True))
            if extra:
                return f"{e.buffer}@({e.offset}{extra})"
            return element_text(buffers[e.buffer], e.offset)
        case b.Coord():
            return f"({e.index})"
        case b.Apply():
            if e.op in INFIX and e.op != "pow":
                return f"({xs[0]} {INFIX[e.op][0]} {xs[1]})"
            return f"{e.op}({', '.join(map(_bare, xs))})"
        case b.Convert():
            return f"{e.dtype}({_bare(xs[0])})"
        case b.Choose():
            return f"({xs[1]} if {xs[0]} else {xs[2]})"
        case b.Guarded():
            return f"({xs[0]} if {conds_text(e.conds)} else {xs[1]})"
        case b.Checked():
            return f"checked({_bare(xs[0])}, {e.extent})"
        case b.Dot():
            return f"sum({e.k}) {xs[0]} * {xs[1]}"
        case b.Ref():
            return e.name
        case _:
            raise TypeError(f"not a scalar expression: {e!r}")


def element_text(x: Buffer, offset: ix.Index) -> str:
    """`x[i, j]` where the offset can be split into coordinates, else `x@(offset)`."""
    if x.strides == offsets.row_major(x.shape) and 0 <= offset.lo and offset.hi < x.size:
        index = offsets.unflatten(offset, x.shape)
        return f"{x.name}[{', '.join(map(str, index))}]" if index else x.name
    return f"{x.name}@({offset})"


# --------------------------------------------------------------------------- calls, as Python text


def call_text(call: LibraryCall, buffers: Mapping[str, Buffer]) -> str:
    """`y = torch.addmm(bias, x, weight.t())`, as the emitted file spells it."""
    args = [argument_code(a, buffers) for a in call.args]
    args += [f"{k}={argument_code(v, buffers)}" for k, v in call.kwargs]
    outs = ", ".join(name or "_" for name in call.outs)
    return f"{outs} = {call.function}({', '.join(args)})"


def argument_code(arg: LibraryArg, buffers: Mapping[str, Buffer], device: str = "device") -> str:
    """The argument as Python; `device` names the device of the inputs there."""
    match arg:
        case Strided():
            return strided_code(arg, buffers[arg.buffer])
        case DType():
            return f"torch.{arg.name}"
        case Device():
            return device
        case Verbatim():
            return arg.text
        case tuple():
            return f"[{', '.join(argument_code(a, buffers, device) for a in arg)}]"
        case float():
            return scalar_code(arg)
        case _:
            return repr(arg)


def scalar_code(value: float | int | bool) -> str:
    """The number as Python text, infinities and NaN included."""
    text = repr(value)
    return f'float("{text}")' if text in ("inf", "-inf", "nan") else text


def strided_code(s: Strided, x: Buffer) -> str:
    """Python text of the view: the name, a transposition, a reshape or torch.as_strided."""
    if (s.shape, s.strides, s.offset) == (x.shape, x.strides, 0):
        return x.name
    if (
        not s.offset
        and len(s.shape) == 2
        and (s.shape, s.strides) == (x.shape[::-1], x.strides[::-1])
    ):
        return f"{x.name}.t()"
    dense = x.strides == offsets.row_major(x.shape) and s.strides == offsets.row_major(s.shape)
    if dense and not s.offset and prod(s.shape) == x.size:
        return f"{x.name}.view({', '.join(map(str, s.shape)) or '()'})"
    # as_strided counts from the start of the storage, which the tensor may not be at.
    offset = f", {x.name}.storage_offset() + {s.offset}" if s.offset else ""
    return f"{x.name}.as_strided({tuple(s.shape)}, {tuple(s.strides)}{offset})"
