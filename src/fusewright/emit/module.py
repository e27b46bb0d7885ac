"""Writes the emitted file: header, the user's source, the kernels in one string, and ModelNew.

The text depends on nothing but its arguments: no paths, no times. Kernels are printed by `unit`,
guards by `guards`, the body of forward by `forward`; what every file shares is in `support`.
"""

import ast
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from fusewright.errors import OutputError

from . import support
from .binding import torch_declarations, torch_wrappers
from .emission import Emission
from .forward import ForwardPlan, forward_lines
from .guards import admitted_lines, filled, guard_parts, table_parts
from .header import header_lines
from .pytext import PythonNames, bracketed, string, unspeakable

__all__ = ["Emission", "module_text"]

# Local names of the emitted forward, and names that must keep their meaning there.
OWN = ("tensors", "device", "library", "stream", "status", "modules", "refusal")
GLOBAL = ("self", "args", "kwargs", "torch", "Model", "map", "list", "type", "len")
RULE = "# " + "-" * 98
UNCHANGED_CLASS = (
    "class ModelNew(Model):",
    '    """`Model` as it is: its forward is library calls, with nothing around them to fuse."""',
)


def module_text(e: Emission) -> str:
    """The emitted file. Raises OutputError when the user's file binds a name that it needs."""
    rule = "\n".join([RULE, "# Kernels and ModelNew, written by fusewright."])
    return _joined(["\n".join(header_lines(e)), e.source, rule, _own_text(e)])


def _own_text(e: Emission) -> str:
    """What follows the user's source. Raises OutputError as `module_text` does."""
    if e.keeps_forward:
        text = "\n".join(UNCHANGED_CLASS) + "\n"
        _check_names(e, text)
        return text
    ours = [
        "\n".join(support.IMPORTS),
        *_kernel_parts(e),
        *table_parts(e),
        *guard_parts(e),
        *_library_parts(e),
        "\n".join(class_lines(e)),
    ]
    text = _joined(ours)
    _check_names(e, text)
    return text


def _joined(parts: list[str]) -> str:
    return "\n\n\n".join(p.strip("\n") for p in parts if p) + "\n"


def _check_names(e: Emission, ours: str) -> None:
    """The user's names must keep their meaning: forward may look them up at any time."""
    known = dict(bound_names(e.source))
    for name, what in bound_names(ours):
        if known.get(name, what) != what or (name in known and not what):
            raise OutputError(
                f"{e.title}.py binds the name {name}, which the emitted file needs: rename it"
            )


def bound_names(source: str) -> list[tuple[str, str]]:
    """Names that a module binds at its top level; with the module's name for an import, else ""."""
    found = []
    for node in ast.parse(source).body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found.append((name, ""))
            case ast.Import(names=names):
                found += [(a.asname or a.name.partition(".")[0], _imported(a)) for a in names]
            case ast.ImportFrom(names=names, module=module):
                found += [(a.asname or a.name, f"{module}.{a.name}") for a in names]
            case ast.Assign() | ast.AnnAssign():
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                leaves = (n for t in targets for n in ast.walk(t) if isinstance(n, ast.Name))
                found += [(n.id, "") for n in leaves]
    return found


def _imported(alias: ast.alias) -> str:
    """What `import a.b` binds is a; what `import a.b as c` binds is a.b."""
    return alias.name if alias.asname else alias.name.partition(".")[0]


# ----------------------------------------------------------------------------------------- kernels


def _kernel_parts(e: Emission) -> list[str]:
    if not e.segments:
        return []
    text = e.kernels
    if e.torch_binding:
        text += "\n" + torch_wrappers(e.program, cuda=e.cuda)
    text = unspeakable(text).strip()
    if '"""' in text:
        raise OutputError("the kernels' text holds three quotes in a row")
    return [f'{e.source_name} = r"""\n{text}\n"""']


def _library_parts(e: Emission) -> list[str]:
    if not e.segments:
        return []
    template = support.TORCH_LIBRARY if e.torch_binding else support.LIBRARY
    functions = [string(s.wrapper) for s in e.segments]
    text = filled(
        template,
        NAME=extension_name(e),
        SOURCES="\n".join(_sources(e)),
        FLAGS="\n".join(_flags(e)),
        FUNCTIONS=f"[{', '.join(functions)}]",
        ENTRIES="\n".join(_entry_types(e)),
    )
    if e.torch_binding:
        return [text]
    return [support.RAISE_CUDA if e.cuda else support.RAISE_CPU, text]


def _sources(e: Emission) -> list[str]:
    if not e.cuda:
        return [f"        cpp_sources=[{e.source_name}],"]
    declarations = torch_declarations(e.program) if e.torch_binding else [""]
    return [
        *bracketed("cpp_sources=[", [string(d) for d in declarations], "],", 2),
        f"        cuda_sources=[{e.source_name}],",
    ]


def _flags(e: Emission) -> list[str]:
    cuda = [*support.CUDA_FLAGS, f"-gencode={e.arch.gencode}"]
    flags = [string(f) for f in (cuda if e.cuda else support.CPU_FLAGS) if _keeps(e, f)]
    if e.cuda:
        return bracketed("extra_cuda_cflags=[", flags, "],", 2)
    links = [string(f) for f in support.CPU_LINK_FLAGS]
    return [
        *bracketed("extra_cflags=[", flags, "],", 2),
        *bracketed("extra_ldflags=[", links, "],", 2),
    ]


def _keeps(e: Emission, flag: str) -> bool:
    """With torch's headers the language standard is torch's to choose."""
    return not (e.torch_binding and flag.startswith("-std="))


def _entry_types(e: Emission) -> list[str]:
    """Every argument of an entry point is a pointer: buffers, and on CUDA the stream."""
    lines = [
        f"    library.{s.entry}.argtypes = [ctypes.c_void_p] * {len(s.buffers) + e.cuda}"
        for s in e.segments
    ]
    if e.allocates_results:
        lines.append("    library.huge_pages.argtypes = [ctypes.c_void_p, ctypes.c_int64]")
    return lines


def extension_name(e: Emission) -> str:
    """Name of the compiled extension: the title and a digest of everything that is compiled."""
    flags = (*support.CUDA_FLAGS, e.arch.gencode) if e.cuda else support.CPU_FLAGS
    compiled = "\0".join([e.kernels, e.options.binding, *flags])
    digest = hashlib.sha256(compiled.encode()).hexdigest()[:16]
    stem = re.sub(r"\W", "_", e.title, flags=re.ASCII)
    return f"fusewright_{stem}_{digest}"


# --------------------------------------------------------------------------------------- the class


def class_lines(e: Emission) -> list[str]:
    """ModelNew: forward behind its guards."""
    head, call = _signature(e)
    names = _local_names(e)
    lines = [
        "class ModelNew(Model):",
        '    """`Model` with the kernels above: same parameters, random numbers, results."""',
        "",
        f"    def forward({head}):",
        f"        @tensors@ = self._admitted({call})",
        "        if @tensors@ is None:",
        f"            return super().forward({call})",
        *(f"        {line}" for line in _binding_lines(e, names, call)),
    ]
    plan = ForwardPlan(
        e.graph, e.program, e.buffers, names.buffers, names.given, e.cuda, e.torch_binding
    )
    lines += forward_lines(plan)
    return _with_own_names(e, [*lines, "", *admitted_lines(e, head)])


def _with_own_names(e: Emission, lines: list[str]) -> list[str]:
    """The lines with every `@name@` replaced by a local name that is no parameter's."""
    fresh = PythonNames(p.name for p in e.interface.parameters or ())
    own = {f"@{name}@": fresh.fresh(name) for name in OWN}
    return [re.sub(r"@[a-z]+@", lambda m: own.get(m[0], m[0]), line) for line in lines]


def _signature(e: Emission) -> tuple[str, str]:
    """Parameters of forward, and the arguments that hand them on."""
    parameters = e.interface.parameters
    if parameters is None:
        return "self, *args, **kwargs", "*args, **kwargs"
    shown = (p.name if p.default is None else f"{p.name}={p.default}" for p in parameters)
    return ", ".join(["self", *shown]), ", ".join(p.name for p in parameters)


@dataclass(frozen=True, slots=True)
class _LocalNames:
    """Names in forward: of each buffer, and of inputs as passed where forward needs those."""

    buffers: Mapping[str, str]
    given: Mapping[str, str]


def _local_names(e: Emission) -> _LocalNames:
    parameters = [p.name for p in e.interface.parameters or ()]
    fresh = PythonNames([*OWN, *(f"{name}_" for name in OWN), *GLOBAL, *parameters])
    texts = dict(e.interface.tensors)
    names: dict[str, str] = {}
    for s in e.graph.inputs:
        text = texts.get(s.name, "")
        names[e.buffers[s.name]] = text if text in parameters else fresh.fresh(e.buffers[s.name])
    for b in e.program.buffers:
        names[b.name] = names.get(b.name) or fresh.fresh(b.name)
    passed = [e.buffers[name] for _, name in e.graph.aliases]
    passed += [name for name, _ in e.program.updates]
    copies = _may_copy(e)
    given = {b: fresh.fresh(f"{b}_given") if copies else names[b] for b in dict.fromkeys(passed)}
    return _LocalNames(names, given)


def _may_copy(e: Emission) -> bool:
    """Whether inputs at odd addresses are computed with as copies."""
    return e.cuda and bool(e.segments) and bool(e.tensors)


def _binding_lines(e: Emission, names: _LocalNames, call: str) -> list[str]:
    """Local names for the tensors, the constants and the kernels."""
    tensors = [names.buffers[e.buffers[s.name]] for s in e.tensors]
    lines: list[str] = []
    lines.append(f"@device@ = {_device_text(e)}")
    if e.cuda and tensors:
        lines += [
            "if @device@.index != torch._C._cuda_getDevice():",
            "    with torch.cuda.device(@device@):",
            f"        return ModelNew.forward(self, {call})",
        ]
    if tensors and not (_may_copy(e) and not names.given):
        lines.append(f"{_targets(tensors)} = @tensors@")
    if _may_copy(e):
        lines += [f"{given} = {names.buffers[b]}" for b, given in names.given.items()]
        lines.append(f"{_targets(tensors)} = _aligned(@tensors@)")
    made = [names.buffers[e.buffers[s.name]] for s in e.graph.inputs if s.literal is not None]
    if made:
        lines.append(f"{_targets(made)} = _constants(@device@)")
    if e.segments:
        lines.append("@library@ = _library()")
        if e.cuda and not e.torch_binding:
            lines.append("@stream@ = torch._C._cuda_getCurrentRawStream(@device@.index)")
    return lines


def _device_text(e: Emission) -> str:
    """The device of the tensors; of no tensors, the target's current one."""
    if e.tensors:
        return "@tensors@[0].device"
    index = ", torch.cuda.current_device()" if e.cuda else ""
    return f'torch.device("{e.arch.kind}"{index})'


def _targets(names: list[str]) -> str:
    return f"({names[0]},)" if len(names) == 1 else ", ".join(names)
