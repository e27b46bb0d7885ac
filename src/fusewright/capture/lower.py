"""The walk over an exported program: each ATen call becomes nodes of the Graph, or an Extern call.

What the operators mean is in the `aten_*` modules; how inputs and outputs are named in
`signature`. Every lowering's result is checked against the shape and dtype that torch computed.
"""

import inspect
import operator
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import fx

from fusewright.context import Context
from fusewright.errors import CaptureError, IRError
from fusewright.ir import graph as g
from fusewright.ir.graph import Call, Device, Graph, Node, Origin, Verbatim
from fusewright.problem import Problem

from .export import export
from .layout import fx_nodes, operand_strides, owns_its_storage
from .numbers import FUNCTIONS, item
from .operands import NotLowered, Number
from .provenance import origin_of
from .signature import ir_dtype, read_inputs, read_results
from .table import LOWERINGS, TAKE_NUMBERS, Lowering


def capture(problem: Problem, context: Context) -> Graph:
    """The forward pass of `problem` for its inputs' shapes, dtypes and strides, as a Graph.

    The module is taken in its current mode; under fake tensors nothing is allocated. Raises
    CaptureError, naming operator and source line, for what cannot be captured.
    """
    exported = export(problem, context)
    inputs = read_inputs(problem, exported.functional)
    walk = _Walk(problem, context, inputs.values)
    returned = walk.run(exported.functional.graph)
    results = read_results(exported, inputs, returned)
    graph = Graph(
        inputs=inputs.specs,
        outputs=results.outputs,
        output_strides=results.strides,
        result=results.structure,
        mutations=results.mutations,
        aliases=results.aliases,
        origins=walk.origins,
    )
    return _without_unused(graph)


def _without_unused(graph: Graph) -> Graph:
    """Drop parameters, buffers and constants that nothing reads or writes; arguments stay."""
    nodes = set(graph.nodes())
    written = {m.target for m in graph.mutations} | {name for _, name in graph.aliases}
    kept = tuple(
        s for s in graph.inputs if s.node.role == "input" or s.node in nodes or s.name in written
    )
    origins = {n: o for n, o in graph.origins.items() if n in nodes}
    return replace(graph, inputs=kept, origins=origins)


# Checks that export leaves behind and that compute nothing; what they guard is not captured.
_NO_VALUE = (
    "aten._assert_tensor_metadata.default",
    "aten._assert_scalar.default",
    "aten._assert_async.default",
    "aten._assert_async.msg",
    "aten._linalg_check_errors.default",
    "aten.sym_constrain_range.default",
    "aten.sym_constrain_range_for_size.default",
)


class _Unknown:
    """A number that nothing here can compute; export makes some that only its checks use."""


class _Walk:
    """Values of the FX nodes seen so far and where the graph's nodes come from."""

    def __init__(self, problem: Problem, context: Context, values: Mapping[str, Any]) -> None:
        self.problem = problem
        self.context = context
        self.values = values
        self.env: dict[fx.Node, Any] = {}
        self.origins: dict[Node, Origin] = {}
        self.known: set[Node] = {v for v in values.values() if isinstance(v, Node)}
        self.calls_in_order = 0

    def run(self, graph: fx.Graph) -> list[Any]:
        """Values of the program's output, in order."""
        for node in graph.nodes:
            if node.op == "output":
                return [self.env[n] if isinstance(n, fx.Node) else n for n in node.args[0]]
            self.env[node] = self._value(node)
        raise IRError("an exported program without output")

    def _value(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return self.values[node.name]
        if node.op != "call_function":
            raise self._refused(node, f"a node of kind {node.op}")
        if node.target is operator.getitem:
            return self._item(node)
        if str(node.target) in _NO_VALUE:
            return self._check_left_out(node)
        if str(node.target) == "with_effects":
            return self._effect(node)
        if not isinstance(node.target, torch._ops.OpOverload):
            return self._number(node)
        return self._call(node, node.target)

    def _check_left_out(self, node: fx.Node) -> None:
        """Checks of values are not repeated; torch's own of numbers and layouts need no word."""
        if str(node.target).startswith("aten._assert_async"):
            line = self._place(node)
            self.context.warn(f"{line}: a check of values here is not repeated in the new file")

    def _effect(self, node: fx.Node) -> tuple[None, ...]:
        """A call that torch orders by tokens: only checks are expected there."""
        if str(node.args[1]) not in _NO_VALUE:
            raise self._refused(node, f"{node.args[1]} has a side effect")
        return (None, None)

    def _number(self, node: fx.Node) -> Any:
        """Arithmetic on numbers that are known at run time only."""
        args = [self.env[a] if isinstance(a, fx.Node) else a for a in node.args]
        if isinstance(node.meta.get("val"), torch.Tensor) or node.kwargs:
            raise self._refused(node, "it is no ATen operator")
        if node.target not in FUNCTIONS or any(isinstance(a, _Unknown) for a in args):
            return _Unknown()
        return FUNCTIONS[node.target](*args)

    def _item(self, node: fx.Node) -> Any:
        """Result number `position` of an operator with several."""
        source, position = node.args
        value = self.env[source][position]  # type: ignore[index]
        return value

    def _call(self, node: fx.Node, op: torch._ops.OpOverload) -> Any:
        args = tuple(self._argument(node, a) for a in node.args)
        kwargs = {k: self._argument(node, v) for k, v in node.kwargs.items()}
        if op._schema.is_mutable:
            raise self._refused(node, "it writes to its arguments")
        if str(op) == "aten._local_scalar_dense.default":
            return item(*args)
        value = self._lowered(node, str(op), args, kwargs)
        self._note_origin(node, value)
        return value

    def _lowered(self, node: fx.Node, name: str, args: Any, kwargs: Any) -> Any:
        """The lowering's result, an Extern call in place of what it does not give."""
        lowering = LOWERINGS.get(name)
        expected = _tensors(node.meta.get("val"))
        if any(isinstance(a, Number) for a in _flat(args, kwargs)) and name not in TAKE_NUMBERS:
            raise self._refused(node, "it needs a number that depends on the values of a tensor")
        if name.startswith("aten.as_strided"):
            self._require_own_storage(node)
        if (
            lowering is None
            or not _takes(lowering, args, kwargs)
            or _opaque(args, kwargs, expected)
        ):
            return self._extern(node, name, args, kwargs)
        try:
            value = lowering(*args, **kwargs)
        except NotLowered:
            return self._extern(node, name, args, kwargs)
        except IRError as error:
            raise IRError(f"{self._place(node)}: {name}: {error}") from error
        self._check(node, name, value, expected)
        if isinstance(value, tuple) and None in value:
            calls = self._extern(node, name, args, kwargs)
            return tuple(c if v is None else v for v, c in zip(value, calls, strict=True))
        return value

    def _check(self, node: fx.Node, name: str, value: Any, expected: list[torch.Tensor]) -> None:
        given = value if isinstance(value, tuple) else (value,)
        if len(given) != len(expected):
            raise IRError(f"{self._place(node)}: {name}: {len(given)} results of {len(expected)}")
        for v, e in zip(given, expected, strict=True):
            found = None if v is None else (v.shape, v.dtype)
            wanted = (tuple(e.shape), ir_dtype(e.dtype))
            if found not in (None, wanted):
                raise IRError(
                    f"{self._place(node)}: {name}: lowered to {found}, torch has {wanted}"
                )

    # ------------------------------------------------------------------------------- extern calls

    def _extern(self, node: fx.Node, name: str, args: Any, kwargs: Any) -> Any:
        """The call as it stands; a tuple for operators with several results."""
        results = _tensors(node.meta.get("val"))
        if name == "aten.native_dropout.default" and _only_first_used(node):
            # Eager calls aten.dropout, which on a CPU rounds otherwise than its native form.
            name, args, results = "aten.dropout.default", (args[0], args[1], True), results[:1]
        if not results:
            raise self._refused(node, "it has no tensor result")
        if any(isinstance(a, Number) for a in _flat(args, kwargs)):
            raise self._refused(node, "it needs a number that depends on the values of a tensor")
        for tensor in results:
            self._require_static(node, tensor)
        if name in RECURRENT and not _only_first_used(node):
            self._require_state_shape(node, results)
        order = None
        if draws_random_numbers(node.target, name, args, kwargs):
            order, self.calls_in_order = self.calls_in_order, self.calls_in_order + 1
        call = Call(
            name,
            args,
            tuple(kwargs.items()),
            tuple((tuple(t.shape), ir_dtype(t.dtype), tuple(t.stride())) for t in results),
            order,
            operand_strides(node),
        )
        nodes = tuple(g.extern(call, k) for k in range(len(results)))
        return nodes[0] if isinstance(node.meta["val"], torch.Tensor) else nodes

    def _require_state_shape(self, node: fx.Node, results: list[torch.Tensor]) -> None:
        """A recurrent layer's new state has the old one's shape (torch 2.11 errs for LSTMs)."""
        states = fx_nodes(node.args[1])
        shapes = [s.meta["val"].shape for s in states]
        if any(r.shape != s for r, s in zip(results[1:], shapes)):
            why = f"torch {torch.__version__} derives a wrong shape for its state, 2.13 does not"
            raise self._refused(node, why)

    def _require_own_storage(self, node: fx.Node) -> None:
        source = node.args[0]
        if isinstance(source, fx.Node) and not owns_its_storage(source.meta["val"]):
            raise self._refused(node, "it reads the storage that a view shares with its base")

    def _require_static(self, node: fx.Node, tensor: torch.Tensor) -> None:
        if not all(isinstance(n, int) for n in tensor.shape):
            raise self._refused(node, "its shape depends on the values of a tensor")

    # ---------------------------------------------------------------------------------- arguments

    def _argument(self, node: fx.Node, arg: Any) -> Any:
        """An FX argument as lowerings and calls take it; sequences become tuples."""
        match arg:
            case fx.Node():
                return self._known(node, self.env[arg])
            case tuple() | list():
                return tuple(self._argument(node, a) for a in arg)
            case torch.dtype():
                return ir_dtype(arg)
            case torch.device():
                return Device()
            case torch.memory_format() | torch.layout():
                return Verbatim(str(arg))
            case None | bool() | int() | float() | str():
                return arg
            case complex():
                return Verbatim(repr(arg))
            case _:
                raise self._refused(node, f"an argument of type {type(arg).__name__}")

    def _known(self, node: fx.Node, value: Any) -> Any:
        if isinstance(value, _Unknown):
            raise self._refused(node, "it needs a number that depends on the values of a tensor")
        return value

    # --------------------------------------------------------------------------------- provenance

    def _note_origin(self, node: fx.Node, value: Any) -> None:
        """Credit every node that is new in `value` to the user's line of the FX node."""
        stack = [v for v in (value if isinstance(value, tuple) else (value,)) if v is not None]
        fresh: list[Node] = []
        while stack:
            n = stack.pop()
            if n in self.known:
                continue
            self.known.add(n)
            fresh.append(n)
            stack.extend(n.operands)
        if fresh:
            origin = origin_of(self.problem, node)
            self.origins.update((n, origin) for n in fresh)

    def _place(self, node: fx.Node) -> str:
        origin = origin_of(self.problem, node)
        where = str(self.problem.path or type(self.problem.module).__name__)
        return f"{where}:{origin.line}: `{origin.text}`" if origin.line else where

    def _refused(self, node: fx.Node, why: str) -> CaptureError:
        return CaptureError(f"{self._place(node)}: {node.target} cannot be captured: {why}")


def _tensors(value: Any) -> list[torch.Tensor]:
    """The tensor results of an operator, None results left out."""
    if isinstance(value, torch.Tensor):
        return [value]
    return [v for v in value if isinstance(v, torch.Tensor)] if _is_sequence(value) else []


def _only_first_used(node: fx.Node) -> bool:
    """Whether the other results of the operator are never taken."""
    return all(u.target is operator.getitem and u.args[1] == 0 for u in node.users)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, tuple | list)


def _flat(args: Any, kwargs: Mapping[str, Any]) -> Iterable[Any]:
    """All arguments, tuples opened."""
    for v in (*args, *kwargs.values()):
        if isinstance(v, tuple):
            yield from _flat(v, {})
        else:
            yield v


def _takes(lowering: Lowering, args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Whether the lowering knows these arguments; another torch may have more."""
    try:
        inspect.signature(lowering).bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def _opaque(args: Any, kwargs: Mapping[str, Any], results: list[torch.Tensor]) -> bool:
    """Whether a dtype that the IR cannot compute with takes part."""
    operands = (n.dtype for n in _flat(args, kwargs) if isinstance(n, Node))
    return any(d.kind == "opaque" for d in (*operands, *(ir_dtype(t.dtype) for t in results)))


RECURRENT = ("aten.lstm.input", "aten.gru.input", "aten.rnn_tanh.input", "aten.rnn_relu.input")


def draws_random_numbers(op: Any, name: str, args: tuple[Any, ...], kwargs: Any) -> bool:
    """Whether this call advances the random generator."""
    if name.startswith("aten.scaled_dot_product_attention"):
        return (args[4] if len(args) > 4 else kwargs.get("dropout_p", 0.0)) > 0
    if name in RECURRENT:
        _, _, _, _, layers, dropout, train, *_ = args
        return bool(train and dropout > 0 and layers > 1)
    return torch.Tag.nondeterministic_seeded in op.tags
