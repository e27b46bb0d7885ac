"""Well-formedness of graphs, checked after every stage. Programs are `check_program`'s.

A failure is a defect of fusewright: IRError names the node and the rule. Nothing is repaired here.
"""

from collections import Counter
from collections.abc import Iterable
from math import prod

from fusewright.errors import IRError

from . import graph as g
from .bounds import violation
from .index import Conds, Index, variables


def require(condition: bool, message: str) -> None:
    """Raise IRError with `message` unless the condition holds."""
    if not condition:
        raise IRError(message)


def unique(what: str, names: Iterable[str]) -> None:
    """Raise IRError naming the names that occur twice."""
    twice = [n for n, count in Counter(names).items() if count > 1]
    require(not twice, f"{what} not unique: {', '.join(twice)}")


def check_graph(graph: g.Graph) -> g.Graph:
    """The graph itself, if it keeps every rule of `ir.graph`; raises IRError otherwise.

    Shapes and dtypes are those the constructors compute, every index is in bounds where its
    conditions hold, every tensor from outside is declared once, every output and mutation fits.
    """
    unique("input names", (s.name for s in graph.inputs))
    _check_inputs(graph)
    for node in graph.nodes():
        _check_node(node)
    _check_outputs(graph)
    _check_mutations(graph)
    return graph


def _check_inputs(graph: g.Graph) -> None:
    declared = {s.name: s.node for s in graph.inputs}
    for spec in graph.inputs:
        require(
            len(spec.strides) == len(spec.node.shape),
            f"input {spec.name}: {len(spec.strides)} strides for shape {spec.node.shape}",
        )
    for node in graph.nodes():
        if isinstance(node, g.Input):
            require(
                declared.get(node.name) == node,
                f"input {node.name}: not declared by the graph, or declared with another type",
            )


def _check_node(node: g.Node) -> None:
    rebuilt = _reconstructed(node)
    same = (rebuilt.shape, rebuilt.dtype) == (node.shape, node.dtype)
    require(same, f"{node.kind} says {node.dtype}{list(node.shape)}, its operands say otherwise")
    require(all(n >= 0 for n in node.shape), f"{node.kind}: negative extent in {node.shape}")
    match node:
        case g.View():
            loops = node.axes
            _check_access("view", node.x, node.index, node.valid, loops, node.size)
        case g.Contract():
            loops = (*node.axes, *node.reduced_axes)
            points = node.size * prod(node.reduced)
            _check_access("contract", node.a, node.a_index, node.a_valid, loops, points)
            _check_access("contract", node.b, node.b_index, node.b_valid, loops, points)
        case g.Gather():
            others = [e for k, e in enumerate(node.index) if k != node.axis]
            rest = tuple(n for k, n in enumerate(node.x.shape) if k != node.axis)
            _check_axes("gather", others, rest, (), node.axes, node.size)
        case g.Iota():
            _check_axes("iota", [node.value * 0], (1,), (), node.axes, node.size)
            _check_variables("iota", [node.value], node.axes)
        case g.Extern():
            require(node.position < len(node.call.results), f"{node.kind}: no such result")


def _reconstructed(node: g.Node) -> g.Node:
    """The node as its constructor makes it, where that computes a shape or dtype."""
    match node:
        case g.Unary():
            return g.unary(node.op, node.x)
        case g.Binary():
            return g.binary(node.op, node.a, node.b)
        case g.Where():
            return g.where(node.cond, node.a, node.b)
        case g.Concat():
            return g.concat(node.xs, node.axis)
        case g.Reduce():
            return g.reduce(node.op, node.x, node.axes_reduced)
        case g.ArgReduce():
            return g.arg_reduce(node.op, node.x, node.axis)
        case g.Scan():
            flags = {"reverse": node.reverse, "exclusive": node.exclusive}
            return g.scan(node.op, node.x, node.axis, **flags)
        case g.Gather():
            return g.gather(node.x, node.where, axis=node.axis, index=node.index)
        case g.Extern():
            return g.extern(node.call, node.position)
        case _:
            return node


def _check_access(
    what: str,
    x: g.Node,
    index: tuple[Index, ...],
    valid: Conds,
    loops: tuple[Index, ...],
    points: int,
) -> None:
    require(len(index) == len(x.shape), f"{what}: {len(index)} indices for shape {x.shape}")
    _check_axes(what, index, x.shape, valid, loops, points)


def _check_axes(
    what: str,
    index: Iterable[Index],
    shape: tuple[int, ...],
    valid: Conds,
    loops: tuple[Index, ...],
    points: int,
) -> None:
    _check_variables(what, [*index, *(c.x for c in valid)], loops)
    if not points:
        return
    for e, n in zip(index, shape, strict=True):
        at = violation(e, n, ((valid, True),) if valid else ())
        require(at is None, f"{what}: index {e} leaves its axis of extent {n} at {at}")


def _check_variables(what: str, xs: Iterable[Index], loops: tuple[Index, ...]) -> None:
    unknown = [v.name for v in variables(*xs) if v not in loops]
    require(not unknown, f"{what}: variables {unknown} are not axes of the node")


def _check_outputs(graph: g.Graph) -> None:
    count = len(graph.outputs)
    require(len(graph.output_strides) == count, "one tuple of strides per output is needed")
    for k, (node, strides) in enumerate(zip(graph.outputs, graph.output_strides, strict=True)):
        require(len(strides) == len(node.shape), f"output {k}: strides {strides} of {node.shape}")
    used = sorted(leaf_positions(graph.result))
    require(set(used) == set(range(count)), f"the result holds outputs {used} of {count}")
    inputs = {s.name: s.node for s in graph.inputs}
    for position, name in graph.aliases:
        require(0 <= position < count and name in inputs, f"alias of output {position} to {name}")
        same = inputs[name].shape == graph.outputs[position].shape
        require(same, f"output {position} has another shape than its alias {name}")


def leaf_positions(result: g.Tree | g.Leaf | g.Verbatim) -> list[int]:
    """Numbers of the output tensors in the structure that forward returns, in its order."""
    match result:
        case g.Leaf():
            return [result.position]
        case g.Tree():
            return [p for child in result.children for p in leaf_positions(child)]
        case _:
            return []


def _check_mutations(graph: g.Graph) -> None:
    inputs = {s.name: s.node for s in graph.inputs}
    unique("mutated inputs", (m.target for m in graph.mutations))
    for m in graph.mutations:
        require(m.target in inputs, f"mutation of {m.target}, which is no input")
        target = inputs[m.target]
        same = (target.shape, target.dtype) == (m.value.shape, m.value.dtype)
        require(same, f"mutation of {m.target}: its new value has another shape or dtype")
