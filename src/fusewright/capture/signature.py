"""How a captured graph meets the module: inputs by path, structure of the result, mutations.

Reads the signatures that torch.export gives; operators are not looked at, except to see which
output is an input that was written in place.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, OutputKind
from torch.utils import _pytree as pytree

from fusewright.errors import CaptureError
from fusewright.ir import graph as g
from fusewright.ir.dtypes import DType, by_name, opaque
from fusewright.ir.graph import Leaf, Node, Path, Role, Tree, Verbatim
from fusewright.problem import Problem

from .export import Exported

LITERAL_LIMIT = 4096
"""Elements of the largest tensor that an emitted file spells out."""


def ir_dtype(dtype: torch.dtype) -> DType:
    """The IR's name of a torch dtype; opaque where the IR cannot compute with it."""
    name = str(dtype).removeprefix("torch.")
    return by_name(name) or opaque(name, dtype.itemsize * 8)


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """`values` gives each placeholder of the functional program its node or Python value."""

    values: Mapping[str, Any]
    specs: tuple[g.InputSpec, ...]


# ----------------------------------------------------------------------------------------- inputs


def read_inputs(problem: Problem, program: ExportedProgram) -> Inputs:
    """Placeholders of `program` as graph inputs: arguments first, then parameters and the like.

    A tensor that the module holds under several names is one input, under its first name.
    """
    values: dict[str, Any] = {}
    specs: dict[str, g.InputSpec] = {}
    leaves = iter(_argument_leaves(problem.inputs))
    held = _HeldTensors.of(problem.module)
    signature = program.graph_signature.input_specs
    for spec in signature:
        if spec.kind is InputKind.USER_INPUT:
            path, leaf = next(leaves)
            name = _placeholder(spec)
            if isinstance(leaf, torch.Tensor):
                specs[name] = _tensor_input(name, "input", path, leaf)
                values[name] = specs[name].node
            else:
                values[name] = leaf
    taken = set(specs)
    for spec in signature:
        if spec.kind is InputKind.TOKEN:
            values[_placeholder(spec)] = None
        elif spec.kind is not InputKind.USER_INPUT:
            values[_placeholder(spec)] = _held_input(program, spec, held, specs, taken)
    return Inputs(values, tuple(specs.values()))


def _placeholder(spec: InputSpec) -> str:
    return spec.arg.name


def _tensor_input(name: str, role: Role, path: Path, tensor: torch.Tensor) -> g.InputSpec:
    if tensor.layout != torch.strided:
        raise CaptureError(f"{name}: tensors of layout {tensor.layout} cannot be captured")
    node = g.input_(name, tuple(tensor.shape), ir_dtype(tensor.dtype), role)
    if not isinstance(node, g.Input):
        raise TypeError("an input node is an Input")
    return g.InputSpec(node, path, tuple(tensor.stride()))


def _argument_leaves(inputs: Iterable[Any]) -> Iterator[tuple[Path, Any]]:
    """(path, value) of every leaf of forward's positional arguments, in export's order."""
    for position, argument in enumerate(inputs):
        for keys, leaf in pytree.tree_flatten_with_path(argument)[0]:
            yield (position, *(_key(k) for k in keys)), leaf


def _key(key: Any) -> int | str:
    for attribute in ("idx", "key", "name"):
        if hasattr(key, attribute):
            return getattr(key, attribute)
    raise CaptureError(f"inputs: no path is known for {key!r} inside a container")


@dataclass(frozen=True, slots=True, eq=False)
class _HeldTensors:
    """Every tensor the module holds: by name, the first path by identity, those not registered."""

    by_name: Mapping[str, torch.Tensor]
    path_of: Mapping[int, Path]
    plain: frozenset[int]

    @classmethod
    def of(cls, module: torch.nn.Module) -> "_HeldTensors":
        named: dict[str, torch.Tensor] = {}
        paths: dict[int, Path] = {}
        registered = (
            *module.named_parameters(remove_duplicate=False),
            *module.named_buffers(remove_duplicate=False),
        )
        for name, tensor in registered:
            named[name] = tensor
            paths.setdefault(id(tensor), tuple(name.split(".")))
        for prefix, part in module.named_modules():
            own = tuple(prefix.split(".")) if prefix else ()
            for path, tensor in _plain_tensors(part):
                named.setdefault(".".join(map(str, own + path)), tensor)
                paths.setdefault(id(tensor), own + path)
        return cls(named, paths, frozenset(paths) - {id(t) for _, t in registered})


_REGISTRIES = ("_parameters", "_buffers", "_modules")


def _plain_tensors(module: torch.nn.Module) -> Iterator[tuple[Path, torch.Tensor]]:
    """Tensors among a module's plain attributes and in containers they hold."""
    for name, value in vars(module).items():
        if name in _REGISTRIES:
            continue
        for keys, leaf in pytree.tree_flatten_with_path(value)[0]:
            if isinstance(leaf, torch.Tensor):
                yield (name, *(_key(k) for k in keys)), leaf


_ROLES: Mapping[InputKind, Role] = {
    InputKind.PARAMETER: "param",
    InputKind.BUFFER: "buffer",
    InputKind.CONSTANT_TENSOR: "constant",
}


def _held_input(
    program: ExportedProgram,
    spec: InputSpec,
    held: _HeldTensors,
    specs: dict[str, g.InputSpec],
    taken: set[str],
) -> Node:
    """The node of a parameter, buffer or constant; adds its InputSpec on first sight."""
    target = spec.target or ""
    if spec.kind not in _ROLES:
        raise CaptureError(f"{target}: an input of kind {spec.kind.name} cannot be captured")
    tensor = held.by_name.get(target)
    if tensor is None:
        tensor = _constant(program, target)
    path = held.path_of.get(id(tensor))
    if path is None:
        return _literal(_placeholder(spec), tensor, specs)
    name = ".".join(map(str, path))
    name = f"self.{name}" if name in taken else name
    if name not in specs:
        role = "constant" if id(tensor) in held.plain else _ROLES[spec.kind]
        specs[name] = _tensor_input(name, role, path, tensor)
    return specs[name].node


def _constant(program: ExportedProgram, target: str) -> torch.Tensor:
    value = program.constants[target]
    if isinstance(value, torch.Tensor):
        return value
    raise CaptureError(f"{target}: a {type(value).__name__} cannot be captured")


def _literal(name: str, tensor: torch.Tensor, specs: dict[str, g.InputSpec]) -> Node:
    """A tensor that forward makes from Python values: a Const if uniform, else spelled out."""
    dtype = ir_dtype(tensor.dtype)
    if isinstance(tensor, FakeTensor) or dtype.kind == "opaque" or tensor.numel() > LITERAL_LIMIT:
        raise CaptureError(
            f"forward uses a constant tensor of shape {tuple(tensor.shape)} and type "
            f"{tensor.dtype} that is no attribute of the module: register it as a buffer"
        )
    values = tuple(tensor.reshape(-1).tolist())
    if not values or all(repr(v) == repr(values[0]) for v in values):
        return g.const(values[0] if values else 0, dtype, tuple(tensor.shape))
    spec = _tensor_input(name, "constant", (), tensor.contiguous())
    specs[name] = dataclasses.replace(spec, literal=values)
    return spec.node


# ---------------------------------------------------------------------------------------- outputs


@dataclass(frozen=True, slots=True, eq=False)
class Results:
    """The outward half of a Graph; see there."""

    outputs: tuple[Node, ...]
    strides: tuple[tuple[int, ...], ...]
    structure: Tree | Leaf | Verbatim
    mutations: tuple[g.Mutation, ...]
    aliases: tuple[tuple[int, str], ...]


def read_results(exported: Exported, inputs: Inputs, returned: Iterable[Any]) -> Results:
    """Sort what the functional program returns into outputs and mutations.

    `returned` are the nodes of its output, in order.
    """
    program = exported.functional
    mutations: list[g.Mutation] = []
    users: list[Node] = []
    for spec, value in zip(program.graph_signature.output_specs, returned, strict=True):
        if spec.kind is OutputKind.USER_OUTPUT:
            users.append(value)
        elif spec.kind in _MUTATIONS:
            mutations.append(_mutation(program, spec.target or "", inputs, value))
        elif spec.kind is not OutputKind.TOKEN:
            raise CaptureError(f"{spec.target}: output of kind {spec.kind.name}")
    tensors = [_written_in_place(n) for n in _user_outputs(exported.written)]
    distinct = list(dict.fromkeys(tensors))
    outputs = tuple(users[tensors.index(t)] for t in distinct)
    strides = tuple(tuple(t.meta["val"].stride()) for t in distinct)
    position = [distinct.index(t) for t in tensors]
    structure = _renumbered(exported.structure, position)
    return Results(outputs, strides, structure, tuple(mutations), _aliases(distinct, inputs))


_MUTATIONS = tuple(kind for kind in OutputKind if kind.name.endswith("_MUTATION"))


def _mutation(program: ExportedProgram, target: str, inputs: Inputs, value: Node) -> g.Mutation:
    """`target` is an attribute path, or for a user input the name of its placeholder."""
    for spec in program.graph_signature.input_specs:
        if target in (spec.target, _placeholder(spec)):
            node = inputs.values[_placeholder(spec)]
            if isinstance(node, g.Input):
                return g.Mutation(node.name, value)
    raise CaptureError(f"forward writes to {target}, which is no input, parameter or buffer")


def _user_outputs(program: ExportedProgram) -> list[Any]:
    returned = next(n for n in reversed(program.graph.nodes) if n.op == "output").args[0]
    specs = program.graph_signature.output_specs
    kept = zip(specs, returned, strict=True)
    return [value for spec, value in kept if spec.kind is OutputKind.USER_OUTPUT]


def _written_in_place(node: fx.Node) -> fx.Node:
    """The node whose tensor object `node` returns: in-place operators return their argument."""
    while node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
        returns = node.target._schema.returns
        alias = returns[0].alias_info if len(returns) == 1 else None
        if alias is None or not alias.is_write or not isinstance(node.args[0], fx.Node):
            break
        node = node.args[0]
    return node


def _aliases(tensors: Iterable[fx.Node], inputs: Inputs) -> tuple[tuple[int, str], ...]:
    """(position, name) of the outputs that are inputs."""
    found = []
    for k, tensor in enumerate(tensors):
        source = inputs.values.get(tensor.name) if tensor.op == "placeholder" else None
        if isinstance(source, g.Input):
            found.append((k, source.name))
    return tuple(found)


def _renumbered(
    structure: Tree | Leaf | Verbatim, position: Sequence[int]
) -> Tree | Leaf | Verbatim:
    """Leaf(k) becomes Leaf(position[k])."""
    if isinstance(structure, Leaf):
        return Leaf(position[structure.position])
    if isinstance(structure, Verbatim):
        return structure
    children = tuple(_renumbered(c, position) for c in structure.children)
    return dataclasses.replace(structure, children=children)
