"""The executable meaning of the IR, in torch: level 1 here, level 2 in `interpret_program`.

Written for clarity and for exactness, not for speed: every stage's result is compared with eager
through it. Nothing is optimised or decided here. Large graphs are walked iteratively.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import prod
from typing import Any

import torch
from torch import Tensor

from fusewright.errors import IRError
from fusewright.ir import index as ix
from fusewright.ir import offsets
from fusewright.ir.dtypes import FLOAT64, DType
from fusewright.ir.graph import (
    Arg,
    ArgReduce,
    Binary,
    Call,
    Cast,
    Concat,
    Const,
    Contract,
    Device,
    Extern,
    Gather,
    Graph,
    Input,
    Iota,
    Node,
    Reduce,
    Scan,
    Unary,
    Verbatim,
    View,
    Where,
    topological,
)
from fusewright.ir.index import Conds, Index

from .interpret_program import ProgramResult, interpret_program
from .scalars import apply, arg_fold, fold, scan, torch_dtype

__all__ = [
    "GraphResult",
    "ProgramResult",
    "interpret_graph",
    "interpret_nodes",
    "interpret_program",
]


@dataclass(frozen=True, slots=True)
class GraphResult:
    """Outputs of a graph in order, and the new value of each mutated input by its name."""

    outputs: list[Tensor]
    mutations: dict[str, Tensor]


def interpret_graph(
    graph: Graph, inputs: Mapping[str, Tensor], *, as_float64: bool = False
) -> GraphResult:
    """The graph's outputs and mutations for `inputs`, which map every input's name to its value.

    Raises IRError where a value breaks the graph's contract. `as_float64` as in `interpret_nodes`.
    """
    values = interpret_nodes(graph.roots, inputs, as_float64=as_float64)
    count = len(graph.outputs)
    updates = {m.target: v for m, v in zip(graph.mutations, values[count:], strict=True)}
    return GraphResult(values[:count], updates)


def interpret_nodes(
    nodes: Sequence[Node], inputs: Mapping[str, Tensor], *, as_float64: bool = False
) -> list[Tensor]:
    """The values of `nodes` for `inputs`, by name; shapes and dtypes as the nodes say.

    With `as_float64` every float type is replaced by float64 (inputs are converted): real
    arithmetic, to tell a wrong rewrite from a rounding. Raises IRError for a missing or different
    input and for an index out of bounds, IndexError for a gather outside its source.
    """
    machine = _Machine(inputs, as_float64, _device(inputs.values()))
    for node in topological((*_in_order(nodes), *nodes)):
        machine.run(node)
    return [machine.values[n] for n in nodes]


def _in_order(nodes: Sequence[Node]) -> list[Node]:
    """The calls that draw random numbers, in the order in which they must."""
    calls = [n for n in topological(nodes) if isinstance(n, Extern)]
    ordered = [(n.call.order, n) for n in calls if n.call.order is not None]
    return [n for _, n in sorted(ordered, key=lambda pair: pair[0])]


def _device(tensors: Iterable[Tensor]) -> torch.device:
    return next((x.device for x in tensors), torch.device("cpu"))


class _Machine:
    """Values of the nodes computed so far."""

    def __init__(
        self, inputs: Mapping[str, Tensor], as_float64: bool, device: torch.device
    ) -> None:
        self.inputs = inputs
        self.as_float64 = as_float64
        self.device = device
        self.values: dict[Node, Tensor] = {}
        self.calls: dict[Call, list[Tensor]] = {}

    def run(self, node: Node) -> None:
        """Compute `node`; its operands have values."""
        value = self._value(node, [self.values[o] for o in node.operands])
        expected = self.dtype(node.dtype)
        if tuple(value.shape) != node.shape or value.dtype != expected:
            raise IRError(
                f"{node.kind}: value is {value.dtype} {tuple(value.shape)}, the node says "
                f"{expected} {node.shape}"
            )
        self.values[node] = value

    def dtype(self, dtype: DType) -> torch.dtype:
        return torch_dtype(FLOAT64 if self.as_float64 and dtype.is_float else dtype)

    def _value(self, node: Node, xs: list[Tensor]) -> Tensor:
        match node:
            case Input():
                return self._input(node)
            case Const():
                value = torch.tensor(node.value, dtype=self.dtype(node.dtype), device=self.device)
                return value.expand(node.shape)
            case Iota():
                grid = evaluate_grid(node.value, node.axes, node.shape, self.device)
                return grid.expand(node.shape).to(self.dtype(node.dtype))
            case Unary() | Binary():
                return apply(node.op, *xs)
            case Where():
                return torch.where(*xs)
            case Cast():
                return xs[0].to(self.dtype(node.dtype))
            case Concat():
                return torch.cat(xs, node.axis)
            case Reduce():
                return fold(node.op, xs[0], node.axes_reduced)
            case ArgReduce():
                return arg_fold(node.op, xs[0], node.axis)
            case Scan():
                return scan(node.op, xs[0], node.axis, node.reverse, node.exclusive)
            case Extern():
                return self._extern(node)
            case _:
                return _indexed_value(node, xs, self.dtype(node.dtype))

    def _input(self, node: Input) -> Tensor:
        if node.name not in self.inputs:
            raise IRError(f"no value was given for the input {node.name!r}")
        value = self.inputs[node.name].detach()
        if tuple(value.shape) != node.shape or (
            not self.as_float64 and value.dtype != torch_dtype(node.dtype)
        ):
            raise IRError(
                f"input {node.name!r} is {value.dtype} {tuple(value.shape)}, the graph says "
                f"{node.dtype} {node.shape}"
            )
        return value.to(self.dtype(node.dtype))

    def _extern(self, node: Extern) -> Tensor:
        call = node.call
        if call not in self.calls:
            strides = iter(call.operand_strides)
            args = [self._argument(a, strides) for a in call.args]
            kwargs = {k: self._argument(v, strides) for k, v in call.kwargs}
            self.calls[call] = tensors_in(resolve(f"torch.ops.{call.op}")(*args, **kwargs))
        return self.calls[call][node.position].to(self.dtype(node.dtype))

    def _argument(self, arg: Arg, strides: Iterator[tuple[int, ...]]) -> Any:
        match arg:
            case Node():
                return laid_out(self.values[arg], next(strides, None))
            case DType():
                return self.dtype(arg)
            case Device():
                return self.device
            case Verbatim():
                return resolve(arg.text)
            case tuple():
                return [self._argument(a, strides) for a in arg]
            case _:
                return arg


def laid_out(x: Tensor, strides: tuple[int, ...] | None) -> Tensor:
    """x with these strides (0 where it is broadcast), row-major for None."""
    if strides is None:
        return x.contiguous()
    cut = (slice(0, 1) if s == 0 and n > 1 else slice(None) for s, n in zip(strides, x.shape))
    core = x[tuple(cut)]
    return torch.empty_strided(core.shape, strides, dtype=x.dtype, device=x.device).copy_(
        core
    ).expand(x.shape)


def resolve(text: str) -> Any:
    """The value of Python text that names something of torch ("torch.ops.aten.cumsum.default")."""
    return eval(text, {"torch": torch})


def tensors_in(result: Any) -> list[Tensor]:
    """The tensors that an operator returned: one, or those of a tuple or list."""
    return [result] if isinstance(result, Tensor) else [x for x in result if isinstance(x, Tensor)]


# ------------------------------------------------------------------------------ index expressions


def evaluate_grid(
    x: Index, variables: Sequence[Index], extents: Sequence[int], device: torch.device
) -> Tensor:
    """`x` on the grid of `variables` (one axis each): an int64 tensor that broadcasts to it."""
    return _on_grid(x, _grid(variables, extents, device), len(extents), device)


def _grid(
    variables: Sequence[Index], extents: Sequence[int], device: torch.device
) -> dict[Index, Tensor]:
    rank = len(extents)
    return {
        v: torch.arange(n, device=device).reshape([n if k == j else 1 for j in range(rank)])
        for k, (v, n) in enumerate(zip(variables, extents, strict=True))
    }


def _on_grid(x: Index, env: Mapping[Index, Tensor], rank: int, device: torch.device) -> Tensor:
    value = torch.as_tensor(ix.evaluate(x, env), device=device)
    return value if value.dim() == rank else value.reshape([1] * rank)


def conditions(conds: Conds, evaluate: Any) -> Tensor | None:
    """The conjunction as a bool tensor, None when there is nothing to check."""
    tests = [evaluate(c.x) >= 0 if c.kind == "ge" else evaluate(c.x) == 0 for c in conds]
    return reduce(torch.logical_and, tests) if tests else None


def _indexed_value(node: Node, xs: list[Tensor], dtype: torch.dtype) -> Tensor:
    match node:
        case View():
            return _view(node, xs[0])
        case Contract():
            return _contract(node, *xs).to(dtype)
        case Gather():
            return _gather(node, *xs)
        case _:
            raise IRError(f"no meaning is known for {node.kind}")


def _view(node: View, x: Tensor) -> Tensor:
    affine = None if node.valid else _affine(node.index, node.axes, node.x.shape)
    if affine is not None:
        strides, offset = affine
        x = x.contiguous()
        return torch.as_strided(x, node.shape, strides, x.storage_offset() + offset)
    return read(x, node.index, node.valid, node.axes, node.shape, node.fill)


def _affine(
    index: tuple[Index, ...], axes: tuple[Index, ...], source: tuple[int, ...]
) -> tuple[tuple[int, ...], int] | None:
    """Strides and offset of the view when it is one that torch can express, else None."""
    offset = offsets.flatten(index, offsets.row_major(source))
    constant, terms = ix.parts(offset)
    if any(c < 0 or a not in axes for c, a in terms) or not prod(source):
        return None
    found = {a: c for c, a in terms}
    return tuple(0 if a == ix.const(0) else found.get(a, 0) for a in axes), constant


def read(
    x: Tensor,
    index: Sequence[Index],
    valid: Conds,
    variables: Sequence[Index],
    extents: Sequence[int],
    fill: float | int | bool = 0,
) -> Tensor:
    """`x[index] if valid else fill` on the grid of `variables`; shape `extents`.

    Raises IRError when an index leaves `x` where `valid` holds.
    """
    shape, rank = tuple(extents), len(extents)
    if not prod(shape):
        return x.new_empty(shape)
    env = _grid(variables, extents, x.device)
    mask = conditions(valid, lambda e: _on_grid(e, env, rank, x.device))
    if mask is not None and not mask.any():
        return x.new_full(shape, fill)
    where = []
    for e, n in zip(index, x.shape, strict=True):
        at = _on_grid(e, env, rank, x.device)
        outside = (at < 0) | (at >= n)
        if (outside if mask is None else outside & mask).any():
            raise IRError(f"index {e} leaves its axis of extent {n}")
        where.append(at.clamp(0, n - 1))
    out = (x[tuple(where)] if where else x).expand(shape)
    return out if mask is None else torch.where(mask.expand(shape), out, x.new_full((), fill))


# ------------------------------------------------------------------------- contraction and gather


def _contract(node: Contract, a: Tensor, b: Tensor) -> Tensor:
    """Each operand is laid out over the variables it depends on, then one einsum sums the products.

    Accumulates in float32 for 16-bit floats, in the operands' type otherwise.
    """
    if not node.size or not prod(node.reduced):
        return a.new_zeros(node.shape)
    named = [*zip(node.axes, node.shape), *zip(node.reduced_axes, node.reduced)]
    loops = [(v, n) if isinstance(v, ix.Var) else (_Unit(k), n) for k, (v, n) in enumerate(named)]
    labels = {v: k for k, (v, _) in enumerate(loops)}
    wide = torch.float32 if a.dtype in (torch.float16, torch.bfloat16) else a.dtype
    used_a = _used(node.a_index, node.a_valid)
    used_b = _used(node.b_index, node.b_valid)
    over_b = [(v, n) for v, n in loops if v in used_b]
    over_a = [(v, n) for v, n in loops if v in used_a or v not in used_b]
    left = _operand(a, node.a_index, node.a_valid, over_a).to(wide)
    right = _operand(b, node.b_index, node.b_valid, over_b).to(wide)
    kept = list(range(len(node.shape)))
    return torch.einsum(
        left, [labels[v] for v, _ in over_a], right, [labels[v] for v, _ in over_b], kept
    )


@dataclass(frozen=True, slots=True)
class _Unit:
    """Stands for the variable of an axis of extent 0 or 1, which index expressions never name."""

    position: int


def _used(index: tuple[Index, ...], valid: Conds) -> frozenset[Index]:
    return frozenset(ix.variables(*index, *(c.x for c in valid)))


def _operand(x: Tensor, index: tuple[Index, ...], valid: Conds, over: Sequence[Any]) -> Tensor:
    return read(x, index, valid, [v for v, _ in over], [n for _, n in over])


def _gather(node: Gather, x: Tensor, where: Tensor) -> Tensor:
    extent = x.shape[node.axis]
    if where.numel() and (bool((where < 0).any()) or bool((where >= extent).any())):
        raise IndexError(f"gather: an index lies outside [0, {extent})")
    if not node.size:
        return x.new_empty(node.shape)
    at = [evaluate_grid(e, node.axes, node.shape, x.device) for e in node.index]
    at[node.axis] = where.to(torch.int64)
    return x[tuple(at)].expand(node.shape)
