"""Prints what an emitted file checks before it computes: tables, and the method that reads tensors.

The checks themselves are the same in every file (`support`); here are the tables they look at, the
conditions on forward's arguments, and the constants that forward writes down.
"""


from fusewright.ir.interface import Held
from fusewright.ir.kernel import LibraryCall
from fusewright.ir.program_text import scalar_code
from fusewright.target.arch import Arch

from . import support
from .emission import Emission
from .pytext import bracketed, string, tuple_text


def filled(template: str, **values: str) -> str:
    """The template with every `@NAME@` replaced."""
    for name, value in values.items():
        template = template.replace(f"@{name}@", value)
    return template


def table_parts(e: Emission) -> list[str]:
    """What the tensors and the modules must be for the kernels to be right; literals."""
    out = ["# Tensors the kernels are made for: name, type, shape, strides."]
    out += ["_TENSORS = (", *_tensor_rows(e), ")"]
    out += ["# Modules the kernels are made for: path, class, values."]
    out += ["_MODULES = (", *_module_rows(e), ")"]
    if e.interface.held:
        out += ["# Where the last tensors are held: position in _MODULES, registry, name."]
        held = (h for _, h in _held(e))
        rows = [f"({h.module}, {string(h.registry)}, {string(h.name)})," for h in held]
        out += ["_HELD = (", *(f"    {row}" for row in rows), ")"]
    return ["\n".join(out), *_literals(e)]


def _held(e: Emission) -> list[tuple[str, Held]]:
    """Registered tensors in the order of the table."""
    held = dict(e.interface.held)
    return [(s.name, held[s.name]) for s in e.tensors if s.name in held]


def _tensor_rows(e: Emission) -> list[str]:
    rows = []
    for s in e.tensors:
        shape, strides = (tuple_text(map(str, t)) for t in (s.node.shape, s.strides))
        cells = [string(s.name), f"torch.{s.node.dtype.name}", shape, strides]
        rows += bracketed("(", cells, "),", 1)
    return rows


def _module_rows(e: Emission) -> list[str]:
    rows = []
    for fact in e.interface.modules:
        pairs = [f"{string(k)}: {v}" for k, v in fact.attributes]
        head = f"{string(fact.path)}, {string(fact.class_name)}"
        if len(f"    ({head}, {{{', '.join(pairs)}}}),") <= 100:
            rows.append(f"    ({head}, {{{', '.join(pairs)}}}),")
        else:
            rows += ["    (", f"        {head},", *bracketed("{", pairs, "},", 2), "    ),"]
    return rows


def _literals(e: Emission) -> list[str]:
    """Constants that forward writes down, as tensors made once for each device."""
    literals = [s for s in e.graph.inputs if s.literal is not None]
    if not literals:
        return []
    lines = ["@functools.lru_cache(maxsize=None)", "def _constants(device):"]
    lines += ['    """Tensors that forward writes down as numbers."""', "    return ("]
    for s in literals:
        values = [scalar_code(v) for v in s.literal or ()]
        options = f"dtype=torch.{s.node.dtype.name}, device=device"
        shape = tuple_text(map(str, s.node.shape))
        lines += bracketed("torch.tensor([", values, f"], {options}).view({shape}),", 2)
    return ["\n".join([*lines, "    )"])]


def guard_parts(e: Emission) -> list[str]:
    """The functions that compare modules and tensors with the tables."""
    first, each, last = support.ON_CUDA if e.cuda else support.ON_CPU
    last = filled(last, CAPABLE=e.arch.capability)
    tensors = filled(support.TENSORS, FIRST=first, EACH=each, LAST=last)
    parts = [support.MODULES, tensors, support.WARN]
    if e.interface.held:
        parts.insert(1, support.HELD)
    if e.program.updates:
        parts.append(support.OVERLAP)
    if e.cuda:
        parts += [filled(support.CAPABLE, TEST=_capability_test(e.arch)), support.ALIGNED]
    else:
        parts.append(support.AUTOCAST)
    if any(isinstance(s, LibraryCall) and s.extern for s in e.program.steps):
        parts.append(support.RESULTS)
    return parts


def _capability_test(arch: Arch) -> str:
    """Python that tests `capability`."""
    major, minor = arch.lowest
    if arch.below == (major, minor + 1):
        return f"capability == {arch.lowest}"
    if arch.below is None:
        return f"capability >= {arch.lowest}"
    return f"{arch.lowest} <= capability < {arch.below}"


def admitted_lines(e: Emission, head: str) -> list[str]:
    """The method that reads the tensors, or says why the reference forward must run."""
    lines = [
        f"    def _admitted({head}):",
        '        """The tensors to compute with; None where the kernels do not apply."""',
        "        @modules@ = list(_modules_of(self, {})) if self._modules else [self]",
        "        @refusal@ = _changed_module(@modules@)",
    ]
    if e.interface.parameters is None:
        lines += [
            f"        if @refusal@ is None and (kwargs or len(args) != {e.interface.count}):",
            '            @refusal@ = "forward is called with other arguments"',
        ]
    for condition in e.interface.conditions:
        lines += bracketed("if @refusal@ is None and not (", [condition.text], "):", 2)
        lines += _refused(string(condition.refusal))
    if e.rounds_convolutions:
        lines.append("        if @refusal@ is None and not torch.backends.cudnn.allow_tf32:")
        lines += _refused(string("convolutions may not be rounded to TF32"))
    lines.append("        if @refusal@ is None:")
    texts = dict(e.interface.tensors)
    reads = [texts[s.name] for s in e.tensors if s.name in texts]
    lines += _read_lines([*reads, *(["*_held(@modules@)"] if e.interface.held else [])])
    lines.append("            @refusal@ = _changed_tensor(@tensors@)")
    if e.program.updates:
        written = tuple_text(str(k) for k in _written_positions(e))
        lines += [
            "        if @refusal@ is None:",
            f"            @refusal@ = _overlap(@tensors@, {written})",
        ]
    return [
        *lines,
        "        if @refusal@ is None:",
        "            return @tensors@",
        "        _warn_once(@refusal@)",
        "        return None",
    ]


def _refused(text: str) -> list[str]:
    line = f"            @refusal@ = {text}"
    if len(line) <= 100:
        return [line]
    return ["            @refusal@ = (", f"                {text}", "            )"]


def _read_lines(items: list[str]) -> list[str]:
    if len(items) == 1:
        return [f"            @tensors@ = ({items[0]},)"]
    return bracketed("@tensors@ = (", items, ")", 3)


def _written_positions(e: Emission) -> list[int]:
    written = {name for name, _ in e.program.updates}
    return [k for k, s in enumerate(e.tensors) if e.buffers[s.name] in written]
