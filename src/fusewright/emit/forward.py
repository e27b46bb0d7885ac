"""Prints the body of ModelNew.forward: allocations, kernel segments, library calls, results.

Guards live in `guards`, the file around it in `module`. Nothing is scheduled here: steps run in the
program's order, each buffer is allocated before its first writer and dropped after its last reader.
Words like @device@ are local names that `module` chooses, apart from the user's parameters.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from fusewright.ir import offsets
from fusewright.ir.graph import Graph, Leaf, Tree, Verbatim
from fusewright.ir.kernel import Buffer, LibraryCall, Program, Strided
from fusewright.ir.program_text import argument_code, strided_code

from .pytext import INDENT, bracketed, comment, tuple_text, unspeakable
from .segment import ROW_MAJOR_RESULTS, Segment, large_result, matrix_shape, units

# Of a statement of forward.
DEPTH = 2
PAD = INDENT * DEPTH


@dataclass(frozen=True, slots=True)
class ForwardPlan:
    """What the printer needs.

    `names` gives each buffer its Python name, `given` the inputs that forward writes or returns
    the name of the tensor as it was passed (an unaligned one is computed with as a copy).
    `buffers` maps the graph's inputs to the program's buffers.
    """

    graph: Graph
    program: Program
    buffers: Mapping[str, str]
    names: Mapping[str, str]
    given: Mapping[str, str]
    cuda: bool
    torch_binding: bool

    def named(self, buffer: str) -> Buffer:
        """The buffer under its Python name."""
        return replace(self.program.buffer(buffer), name=self.names[buffer])

    def strided(self, s: Strided) -> str:
        return strided_code(s, self.named(s.buffer))


def forward_lines(plan: ForwardPlan) -> list[str]:
    """The statements after the guards, up to and including the return."""
    steps = tuple(units(plan.program))
    lines: list[str] = []
    last = _last_use(plan.program, steps)
    for number, unit in enumerate(steps):
        lines += _unit_lines(plan, unit)
        dead = [plan.names[b] for b, at in last.items() if at == number]
        if dead and number + 1 < len(steps):
            lines.append(f"{PAD}del {', '.join(dead)}")
    written = {name for step in plan.program.steps for name in step.writes}
    for b in plan.program.buffers:  # what no step writes is empty
        if not b.given and b.name not in written and b.name in plan.program.kept:
            lines += _allocation(plan, b)
    return lines + _ending(plan)


def _last_use(program: Program, steps: Sequence[Segment | LibraryCall]) -> dict[str, int]:
    """The number of the last unit that touches each temporary which is not needed at the end."""
    kept = program.kept
    temporary = {b.name for b in program.buffers if not b.given and b.name not in kept}
    out: dict[str, int] = {}
    for number, unit in enumerate(steps):
        touched = (
            (*unit.reads, *unit.writes)
            if isinstance(unit, LibraryCall)
            else (b.name for b in unit.buffers)
        )
        out.update((name, number) for name in touched if name in temporary)
    return out


# ------------------------------------------------------------------------------------------- units


def _unit_lines(plan: ForwardPlan, unit: Segment | LibraryCall) -> list[str]:
    if isinstance(unit, LibraryCall):
        return [*_origins(unit.origins), *_call_lines(plan, unit)]
    lines = _origins(o for k in unit.kernels for o in k.origins)
    if plan.torch_binding:
        return lines + _torch_entry(plan, unit)
    for b in unit.fresh:
        lines += _allocation(plan, b)
    pointers = [f"{plan.names[b.name]}.data_ptr()" for b in unit.buffers]
    stream = ["@stream@"] if plan.cuda else []
    head = f"@status@ = @library@.{unit.entry}("
    lines += bracketed(head, [*pointers, *stream], ")", DEPTH)
    return [*lines, f"{PAD}if @status@:", f"{PAD}    _raise(@library@, @status@)"]


def _origins(texts: Iterable[str]) -> list[str]:
    distinct = [t for t in dict.fromkeys(texts) if t]
    lines = [line for t in distinct[:8] for line in comment(unspeakable(t), DEPTH)]
    return lines + (comment("...", DEPTH) if len(distinct) > 8 else [])


def _allocation(plan: ForwardPlan, b: Buffer) -> list[str]:
    """`torch.empty` would read better, and takes a third longer to read its arguments."""
    sizes = [tuple_text(map(str, t)) for t in (b.shape, b.strides)]
    options = [f"dtype=torch.{b.dtype.name}", "device=@device@"]
    name = plan.names[b.name]
    return bracketed(f"{name} = torch.empty_strided(", [*sizes, *options], ")", DEPTH)


def _torch_entry(plan: ForwardPlan, segment: Segment) -> list[str]:
    """The classical binding: tensors in, the new tensors out (a list when there are several)."""
    given = [plan.names[b.name] for b in segment.buffers if b not in segment.fresh]
    new = ", ".join(plan.names[b.name] for b in segment.fresh)
    target = f"{new} = " if new else ""
    return bracketed(f"{target}@library@.{segment.wrapper}(", given, ")", DEPTH)


def _call_lines(plan: ForwardPlan, call: LibraryCall) -> list[str]:
    """A library call and, where its result is not laid out as the program says, its view."""
    named = {s.buffer: plan.named(s.buffer) for s in call.operands}
    args = [argument_code(a, named, "@device@") for a in call.args]
    args += [f"{k}={argument_code(v, named, '@device@')}" for k, v in call.kwargs]
    if call.extern:
        return _extern_lines(plan, call, args)
    (name,) = call.outs
    result = None if plan.cuda or plan.torch_binding else large_result(plan.program, call)
    if result is not None:
        lines = _allocation(plan, result)
        out = plan.names[name]
        lines.append(f"{PAD}@library@.huge_pages({out}.data_ptr(), {result.nbytes})")
        return [*lines, *bracketed(f"{call.function}(", [*args, f"out={out}"], ")", DEPTH)]
    return bracketed(
        f"{plan.names[name]} = {call.function}(", args, f"){_seen_as(plan, call)}", DEPTH
    )


def _seen_as(plan: ForwardPlan, call: LibraryCall) -> str:
    """The method calls that show a contraction's row-major result with its node's axes."""
    buffer = plan.program.buffer(call.outs[0])
    dense = "" if call.function in ROW_MAJOR_RESULTS else ".contiguous()"
    if call.is_convolution and buffer.strides == offsets.channels_last(buffer.shape):
        rank = "_3d" if len(buffer.shape) == 5 else ""
        return f".contiguous(memory_format=torch.channels_last{rank})"
    if buffer.strides != offsets.row_major(buffer.shape):
        shape, strides = (tuple_text(map(str, t)) for t in (buffer.shape, buffer.strides))
        return f"{dense}.as_strided({shape}, {strides})"
    if buffer.shape == matrix_shape(call) or call.is_convolution:
        return dense
    return f"{dense}.view({tuple_text(map(str, buffer.shape))})"


def _extern_lines(plan: ForwardPlan, call: LibraryCall, args: Sequence[str]) -> list[str]:
    """A foreign op: its results are brought to the strides they had at capture."""
    strides = [
        tuple_text(map(str, plan.program.buffer(o).strides)) if o else "None" for o in call.outs
    ]
    names = [plan.names[o] if o else "_" for o in call.outs]
    target = f"({names[0]},)" if len(names) == 1 else ", ".join(names)
    inner = bracketed(f"{call.function}(", args, "),", DEPTH + 1)
    line = f"{target} = _results({call.function}({', '.join(args)}), {tuple_text(strides)})"
    if len(PAD) + len(line) <= 100:
        return [f"{PAD}{line}"]
    return [f"{PAD}{target} = _results(", *inner, f"{PAD}    {tuple_text(strides)},", f"{PAD})"]


# ------------------------------------------------------------------------------------------ ending


def _ending(plan: ForwardPlan) -> list[str]:
    """Copies into mutated inputs, then the result in the structure that forward returns."""
    lines = []
    targets = {name for name, _ in plan.program.updates}
    clobbered = [s for _, s in plan.program.updates if s.buffer in targets]
    saved: dict[Strided, str] = {}
    for s in dict.fromkeys(clobbered):
        saved[s] = f"old_{plan.names[s.buffer]}"
        lines.append(f"{PAD}{saved[s]} = {plan.strided(s)}.clone()")
    results = [_result(plan, k) for k in range(len(plan.program.returns))]
    early = {}
    for k, text in enumerate(results):
        if targets and text.endswith(".clone()"):
            early[k] = f"result_{k}"
            lines.append(f"{PAD}result_{k} = {text}")
    for name, s in plan.program.updates:
        lines.append(f"{PAD}{plan.given[name]}.copy_({saved.get(s) or plan.strided(s)})")
    texts = [early.get(k, text) for k, text in enumerate(results)]
    return [*lines, f"{PAD}return {structure_text(plan.graph.result, texts)}"]


def _result(plan: ForwardPlan, position: int) -> str:
    """The tensor to return: an input itself where eager returns it, else memory of its own, though
    an input or an earlier result has the same values."""
    if (source := dict(plan.graph.aliases).get(position)) is not None:
        return plan.given[plan.buffers[source]]
    s = plan.program.returns[position]
    taken = plan.program.buffer(s.buffer).given or any(
        s.buffer == earlier.buffer for earlier in plan.program.returns[:position]
    )
    return f"{plan.strided(s)}.clone()" if taken else plan.strided(s)


def structure_text(result: Tree | Leaf | Verbatim, leaves: Sequence[str]) -> str:
    """The structure that forward returns, as Python text around its tensors."""
    if isinstance(result, Leaf):
        return leaves[result.position]
    if isinstance(result, Verbatim):
        return result.text
    parts = [structure_text(child, leaves) for child in result.children]
    if result.kind == "tuple":
        return tuple_text(parts)
    if result.kind == "list":
        return f"[{', '.join(parts)}]"
    pairs = list(zip(result.keys, parts, strict=True))
    if result.kind != "dict" and all(str(key).isidentifier() for key in result.keys):
        return f"{result.kind}({', '.join(f'{key}={part}' for key, part in pairs)})"
    items = f"{{{', '.join(f'{key!r}: {part}' for key, part in pairs)}}}"
    return items if result.kind == "dict" else f"{result.kind}(**{items})"
