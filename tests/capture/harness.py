"""Capture, interpret, compare with eager: what every test of this folder stands on."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from fusewright.capture import capture
from fusewright.context import Context
from fusewright.ir.check_graph import check_graph
from fusewright.ir.graph import Extern, Graph, InputSpec, Leaf, Tree, Verbatim
from fusewright.problem import problem_from_module
from fusewright.run.interpret import interpret_graph

# Relative and absolute; eager and the interpreter round intermediate results in other orders.
TOLERANCE = {
    torch.float64: (1e-10, 1e-10),
    torch.float32: (2e-5, 2e-5),
    torch.float16: (4e-3, 4e-3),
    torch.bfloat16: (3e-2, 3e-2),
}


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


def captured(module: nn.Module, *inputs: Any) -> Graph:
    """The checked graph of a live module."""
    return check_graph(capture(problem_from_module(module, list(inputs)), Context()))


def bound(graph: Graph, module: nn.Module, inputs: Sequence[Any]) -> dict[str, torch.Tensor]:
    """Real values of the graph's inputs."""
    return {spec.name: _value(spec, module, inputs) for spec in graph.inputs}


def _value(spec: InputSpec, module: nn.Module, inputs: Sequence[Any]) -> torch.Tensor:
    if spec.literal is not None:
        dtype = getattr(torch, spec.node.dtype.name)
        device = next(x.device for x in pytree.tree_leaves(inputs) if isinstance(x, torch.Tensor))
        return torch.tensor(spec.literal, dtype=dtype, device=device).reshape(spec.node.shape)
    value: Any = inputs if spec.node.role == "input" else module
    for key in spec.path:
        if isinstance(key, str) and not isinstance(value, dict):
            value = getattr(value, key)
        else:
            value = value[key]
    assert value.stride() == spec.strides
    return value


def run_graph(graph: Graph, module: nn.Module, inputs: Sequence[Any]) -> tuple[Any, dict[str, Any]]:
    """(what forward returns, new values of mutated inputs) by the interpreter."""
    result = interpret_graph(graph, bound(graph, module, inputs))
    return rebuilt(graph.result, result.outputs), result.mutations


def rebuilt(structure: Tree | Leaf | Verbatim, outputs: Sequence[torch.Tensor]) -> Any:
    """The structure around the outputs; classes come back as (name, fields)."""
    match structure:
        case Leaf():
            return outputs[structure.position]
        case Verbatim():
            return eval(structure.text)
    children = [rebuilt(c, outputs) for c in structure.children]
    if structure.kind in ("tuple", "list"):
        return tuple(children) if structure.kind == "tuple" else children
    fields = dict(zip(structure.keys, children, strict=True))
    return fields if structure.kind == "dict" else (structure.kind, fields)


def assert_close(actual: torch.Tensor, expected: torch.Tensor, slack: float = 1) -> None:
    assert isinstance(actual, torch.Tensor) and isinstance(expected, torch.Tensor)
    relative, absolute = TOLERANCE.get(expected.dtype, (0.0, 0.0))
    torch.testing.assert_close(
        actual, expected.detach(), rtol=relative * slack, atol=absolute * slack, equal_nan=True
    )


def assert_same_tree(actual: Any, expected: Any, slack: float = 1) -> None:
    """Equal structures with close leaves."""
    got, spec = pytree.tree_flatten(actual)
    want, wanted = pytree.tree_flatten_with_path(expected)
    assert spec == wanted
    wrong = []
    for a, (path, e) in zip(got, want, strict=True):
        try:
            if isinstance(e, torch.Tensor):
                assert_close(a, e, slack)
            else:
                assert a == e
        except AssertionError as error:
            wrong.append(f"{pytree.keystr(path)}: {error}")
    assert not wrong, "\n".join(wrong)


def check_module(
    module: nn.Module, *inputs: Any, externs: int | None = 0, slack: float = 1
) -> Graph:
    """Capture `module`, run both, compare outputs, strides, buffers and inputs; returns the graph.

    `externs` is the number of distinct ATen calls expected in the graph, None for any.
    """
    graph = captured(module, *inputs)
    reference = copy.deepcopy(module)
    reference_inputs = copy.deepcopy(list(inputs))
    torch.manual_seed(0)
    result, mutations = run_graph(graph, module, inputs)
    torch.manual_seed(0)
    with torch.no_grad():
        expected = reference(*reference_inputs)
    assert_same_tree(result, expected, slack)
    for spec in graph.inputs:
        if spec.literal is None:
            new = _mutated(spec, reference, reference_inputs)
            old = _value(spec, module, inputs)
            assert_close(mutations.get(spec.name, old), new, slack)
    assert_strides(graph, expected)
    if externs is not None:
        assert len(calls(graph)) == externs, calls(graph)
    return graph


def _mutated(spec: InputSpec, module: nn.Module, inputs: Sequence[Any]) -> torch.Tensor:
    return _value(spec, module, inputs)


def assert_strides(graph: Graph, expected: Any) -> None:
    """Strides of the output tensors where axes have more than one element."""
    tensors = {id(t): t for t in pytree.tree_leaves(expected) if isinstance(t, torch.Tensor)}
    assert len(tensors) <= len(graph.outputs)
    if len(tensors) != len(graph.outputs):
        return
    for strides, tensor in zip(graph.output_strides, tensors.values(), strict=True):
        if tensor.numel():
            kept = [k for k, n in enumerate(tensor.shape) if n > 1]
            assert [strides[k] for k in kept] == [tensor.stride()[k] for k in kept]


def calls(graph: Graph) -> list[str]:
    """ATen operators that the graph calls, each call once."""
    return [c.op for c in dict.fromkeys(n.call for n in graph.nodes() if isinstance(n, Extern))]


def check_function(function: Callable[..., Any], *inputs: Any, **options: Any) -> Graph:
    return check_module(Call(function), *inputs, **options)
