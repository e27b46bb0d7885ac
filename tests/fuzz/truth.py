"""What a model's call gives and changes: by eager, in float64, and what rounding may make of it.

The measures are the verifier's (`run/verify`); here they are applied to one call in this process.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from capture.harness import rebuilt
from fusewright.ir.graph import ArgReduce, Cast, Graph, InputSpec, Node, topological
from fusewright.run.verify import judge, metrics, oracle
from fusewright.run.verify.arithmetic import Float64, Jitter

# Runs with every result randomly rounded, and runs in which the inputs and the state are as well:
# a sum done in another order moves by as much as its terms, of which eager's total shows nothing.
JITTERED_RUNS, JITTERED_INPUTS = 3, 3
# What flips when its operand moves by a rounding: no inputs are moved for an output behind these.
STEPS = frozenset(
    ("floor", "ceil", "trunc", "round", "sign", "fmod", "remainder", "eq", "ne", "lt", "le", "gt")
)
Values = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Truth:
    """Eager's values by name (`output[0]`, `self.b1`, `x0`), its results, and what is allowed."""

    outputs: Any
    eager: Values
    expected: Mapping[str, judge.Expected]

    def findings(self, candidate: Values) -> list[str]:
        """What is wrong with a candidate's values; a name that it lacks was not changed by it."""
        wrong = []
        for name, expected in self.expected.items():
            if name in candidate:
                found = judge.judge(candidate[name], expected)
                wrong += [] if found.ok else [f"{name}: {found.reason}"]
        return wrong


def at(path: Sequence[Any], root: Any) -> Any:
    """The value at a graph input's path."""
    for key in path:
        named = isinstance(key, str) and not isinstance(root, dict)
        root = getattr(root, key) if named else root[key]
    return root


def held(graph: Graph, module: nn.Module, inputs: Sequence[Any]) -> dict[str, Tensor]:
    """The tensors of the call that the graph reads or writes, by the graph's names."""
    return {s.name: _tensor(s, module, inputs) for s in graph.inputs}


def _tensor(spec: InputSpec, module: nn.Module, inputs: Sequence[Any]) -> Tensor:
    if spec.literal is not None:
        dtype = getattr(torch, spec.node.dtype.name)
        return torch.tensor(spec.literal, dtype=dtype).reshape(spec.node.shape)
    return at(spec.path, inputs if spec.node.role == "input" else module)


def called(module: nn.Module, inputs: list[Any]) -> Any:
    torch.manual_seed(0)
    with torch.no_grad():
        return module(*inputs)


def named(
    graph: Graph, outputs: Any, module: nn.Module, inputs: Sequence[Any]
) -> dict[str, Tensor]:
    """Tensors returned and, after the call, those that it holds."""
    leaves = [x for x in pytree.tree_leaves(outputs) if isinstance(x, Tensor)]
    found = {f"output[{k}]": x.detach() for k, x in enumerate(leaves)}
    after = held(graph, module, inputs)
    return found | {n: after[n].detach() for n in sorted(after)}


def truth_of(graph: Graph, module: nn.Module, inputs: list[Any]) -> Truth:
    """Runs copies of the module. Raises oracle.OracleUnavailable where float64 cannot be had."""
    ours, given = copy.deepcopy(module), copy.deepcopy(inputs)
    outputs = called(ours, given)
    eager = named(graph, outputs, ours, given)
    unit, base = _coarsest(graph), oracle.base_dtype(module, inputs)
    jitters = [Jitter(unit, seed) for seed in range(JITTERED_RUNS + JITTERED_INPUTS)]
    exact = _wide(graph, module, inputs, Float64(base), None)
    rounded = [
        _wide(graph, module, inputs, Float64(base, jitter=j), j if k >= JITTERED_RUNS else None)
        for k, j in enumerate(jitters)
    ]
    smooth = _smooth(graph)
    expected = {}
    for name, tensor in eager.items():
        runs = rounded if name in smooth else rounded[:JITTERED_RUNS]
        others = [{name: other[name]} for other in runs]
        whole = judge.Slice(0, {name: tensor}, {name: exact[name]}, others)
        slices = lambda _, whole=whole: [whole]  # noqa: E731
        expected |= judge.expect({name: tensor}, slices, True, 1.0)
    return Truth(outputs, eager, expected)


def _coarsest(graph: Graph) -> float:
    """Unit roundoff of the coarsest floating-point type that the graph computes in."""
    dtypes = {getattr(torch, n.dtype.name) for n in graph.nodes() if n.dtype.is_float}
    return max((metrics.UNIT_ROUNDOFF[d] for d in dtypes), default=2.0**-24)


def _smooth(graph: Graph) -> frozenset[str]:
    """Names of the results behind which no node is a step."""
    results = dict(_nodes(graph))
    return frozenset(n for n, x in results.items() if not any(map(_steps, topological((x,)))))


def _nodes(graph: Graph) -> Iterator[tuple[str, Node]]:
    leaves = pytree.tree_leaves(rebuilt(graph.result, graph.outputs))  # type: ignore[arg-type]
    yield from ((f"output[{k}]", x) for k, x in enumerate(leaves))
    yield from ((m.target, m.value) for m in graph.mutations)


def _steps(node: Node) -> bool:
    to_whole = isinstance(node, Cast) and not node.dtype.is_float and node.x.dtype.is_float
    return to_whole or isinstance(node, ArgReduce) or getattr(node, "op", "") in STEPS


def _wide(
    graph: Graph, module: nn.Module, inputs: list[Any], mode: Float64, moved: Jitter | None
) -> dict[str, Tensor]:
    """Values of a float64 run; `moved` jitters inputs and state first."""
    wide = oracle.widen(module)
    given = oracle.widen_inputs(inputs, moved and (lambda _, t: moved.move(t.clone())))
    if moved is not None:
        oracle.edit_state(wide, lambda _, t: moved.move(t.clone()))
    effects = oracle.run_wide(wide, given, 0, mode)
    return {n: t.clone() for n, t in named(graph, effects.output, wide, given).items()}
