"""Level 1: the Graph of tensor operations that algebra works on, and the constructors of its nodes.

Every node is immutable, content-addressed (`keyed`) and carries its shape and dtype. Build nodes
only through the lower-case constructor functions: they compute shape and dtype and raise IRError.
There is no implicit broadcasting and no implicit conversion: operands of a pointwise op have the
result's very shape and one dtype; `expand` and `cast` say so. No C, no torch, no cost here.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Literal, Union

from fusewright.errors import IRError

from . import index as ix
from . import offsets
from .dtypes import BOOL, INT64, DType
from .index import Conds, Index
from .nodes import (
    Arg as Arg,
)
from .nodes import (
    ArgReduce as ArgReduce,
)
from .nodes import (
    Binary,
    Call,
    Cast,
    Concat,
    Const,
    Contract,
    Extern,
    Gather,
    Input,
    Iota,
    Node,
    Reduce,
    Role,
    Scalar,
    Scan,
    Shape,
    Unary,
    Verbatim,
    View,
    Where,
)
from .nodes import (
    Device as Device,
)
from .scalar import OPS, REDUCTIONS, SCANS, identity, result_dtype

# ------------------------------------------------------------------------------------ constructors


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise IRError(message)


def input_(name: str, shape: Shape, dtype: DType, role: Role = "input") -> Node:
    """A tensor from outside."""
    return Input(shape, dtype, name, role)


def const(value: Scalar, dtype: DType, shape: Shape = ()) -> Node:
    """`value` (converted to `dtype`) in every element."""
    python = {"bool": bool, "int": int, "float": float}[dtype.kind]
    return Const(shape, dtype, python(value))


def iota(value: Index, shape: Shape, dtype: DType = INT64) -> Node:
    """`out[i] = value(i)` over the variables i0, i1, ... of `shape`."""
    if (constant := ix.constant_value(value)) is not None:
        return const(constant, dtype, shape)
    return Iota(shape, dtype, value)


def unary(op: str, x: Node) -> Node:
    """Pointwise `op(x)`."""
    entry = OPS.get(op)
    if entry is None or entry.arity != 1 or x.dtype.kind not in entry.on:
        raise IRError(f"unary {op} is not defined on {x.dtype}")
    return Unary(x.shape, result_dtype(entry, x.dtype), op, x)


def binary(op: str, a: Node, b: Node) -> Node:
    """Pointwise `op(a, b)`; same shape, same dtype."""
    entry = OPS.get(op)
    if entry is None or entry.arity != 2 or a.dtype.kind not in entry.on:
        raise IRError(f"binary {op} is not defined on {a.dtype}")
    _require(a.shape == b.shape, f"{op}: shapes {a.shape} and {b.shape} differ")
    _require(a.dtype == b.dtype, f"{op}: dtypes {a.dtype} and {b.dtype} differ")
    return Binary(a.shape, result_dtype(entry, a.dtype), op, a, b)


def where(cond: Node, a: Node, b: Node) -> Node:
    """Pointwise choice; `cond` is bool, `a` and `b` agree."""
    _require(cond.dtype == BOOL, f"where: condition is {cond.dtype}, not bool")
    _require(cond.shape == a.shape == b.shape, "where: shapes differ")
    _require(a.dtype == b.dtype, f"where: dtypes {a.dtype} and {b.dtype} differ")
    return Where(a.shape, a.dtype, cond, a, b)


def cast(x: Node, dtype: DType) -> Node:
    """`x` converted to `dtype`; x itself when it has that dtype."""
    if x.dtype == dtype:
        return x
    return Cast(x.shape, dtype, x)


def view(
    x: Node, shape: Shape, index: Iterable[Index], valid: Conds = (), fill: Scalar = 0
) -> Node:
    """`out[i] = x[index(i)] if valid(i) else fill`."""
    index = tuple(index)
    _require(len(index) == len(x.shape), f"view: {len(index)} indices for {len(x.shape)} axes")
    if not valid and prod(shape):
        for e, n in zip(index, x.shape, strict=True):
            _require(0 <= e.lo and e.hi < n, f"view: index {e} in [{e.lo}, {e.hi}] outside {n}")
    if not valid:
        fill = 0
    if shape == x.shape and index == x.axes and not valid:
        return x
    return View(shape, x.dtype, x, index, valid, fill)


def concat(xs: Iterable[Node], axis: int) -> Node:
    """The operands one after the other along `axis`; other extents and dtypes agree."""
    xs = tuple(xs)
    _require(bool(xs), "concat of nothing")
    first = xs[0]
    for x in xs:
        same = x.shape[:axis] + x.shape[axis + 1 :] == first.shape[:axis] + first.shape[axis + 1 :]
        _require(same and x.dtype == first.dtype, "concat: shapes or dtypes differ")
    if len(xs) == 1:
        return first
    total = sum(x.shape[axis] for x in xs)
    shape = (*first.shape[:axis], total, *first.shape[axis + 1 :])
    return Concat(shape, first.dtype, xs, axis)


def reduce(op: str, x: Node, axes: Iterable[int]) -> Node:
    """Fold `op` (sum, prod, max, min, any, all) over `axes`, in x.dtype; the axes vanish."""
    axes = tuple(sorted(axes))
    entry = REDUCTIONS.get(op)
    if entry is None or x.dtype.kind not in entry.on:
        raise IRError(f"reduce {op} is not defined on {x.dtype}")
    _require(all(0 <= a < len(x.shape) for a in axes), f"reduce: axes {axes} of {x.shape}")
    _require(len(set(axes)) == len(axes), f"reduce: repeated axes {axes}")
    if not axes:
        return x
    return Reduce(tuple(n for k, n in enumerate(x.shape) if k not in axes), x.dtype, op, x, axes)


def arg_reduce(op: str, x: Node, axis: int) -> Node:
    """Position (int64) of the extreme value along `axis`, which vanishes."""
    _require(op in ("argmax", "argmin"), f"unknown arg reduction {op}")
    _require(0 <= axis < len(x.shape) and x.shape[axis] > 0, f"{op}: axis {axis} of {x.shape}")
    shape = x.shape[:axis] + x.shape[axis + 1 :]
    if x.shape[axis] == 1:
        return const(0, INT64, shape)
    return ArgReduce(shape, INT64, "argmax" if op == "argmax" else "argmin", x, axis)


def scan(op: str, x: Node, axis: int, *, reverse: bool = False, exclusive: bool = False) -> Node:
    """Running fold of `op` (see `ir.scalar.SCANS`) along `axis`; x.dtype, int64 for positions."""
    if op not in SCANS or x.dtype.kind not in SCANS[op]:
        raise IRError(f"scan {op} is not defined on {x.dtype}")
    _require(0 <= axis < len(x.shape), f"scan: axis {axis} of {x.shape}")
    positions = op in ("argmax", "argmin")
    _require(not (positions and exclusive), f"scan {op}: no position of nothing")
    dtype = INT64 if positions else x.dtype
    if x.shape[axis] > 1:
        return Scan(x.shape, dtype, op, x, axis, reverse, exclusive)
    if positions or exclusive:
        return const(0 if positions else identity(op, dtype), dtype, x.shape)
    return x


def reduced_axes(extents: Shape) -> tuple[Index, ...]:
    """The canonical variables r0, r1, ... of a contraction's reduced axes."""
    return tuple(ix.var(f"r{k}", n) for k, n in enumerate(extents))


def contract(
    a: Node,
    b: Node,
    shape: Shape,
    reduced: Shape,
    a_index: Iterable[Index],
    b_index: Iterable[Index],
    a_valid: Conds = (),
    b_valid: Conds = (),
    family: Literal["matmul", "convolution", "exact convolution"] = "matmul",
    dtype: DType | None = None,
) -> Node:
    """A sum of products; see Contract."""
    a_index, b_index = tuple(a_index), tuple(b_index)
    _require(a.dtype == b.dtype, f"contract: dtypes {a.dtype} and {b.dtype} differ")
    _require(len(a_index) == len(a.shape) and len(b_index) == len(b.shape), "contract: rank")
    empty = not prod(shape) or not prod(reduced)
    for x, index, valid in ((a, a_index, a_valid), (b, b_index, b_valid)):
        if not valid and not empty:
            for e, n in zip(index, x.shape, strict=True):
                _require(0 <= e.lo and e.hi < n, f"contract: index {e} outside extent {n}")
    return Contract(
        shape, dtype or a.dtype, a, b, reduced, a_index, b_index, a_valid, b_valid, family
    )


def gather(x: Node, where: Node, *, axis: int, index: Iterable[Index]) -> Node:
    """`out[i] = x[..., where[i], ...]`; see Gather."""
    index = tuple(index)
    _require(where.dtype.kind == "int", f"gather: index is {where.dtype}")
    _require(len(index) == len(x.shape), "gather: one index per axis of the source")
    _require(ix.constant_value(index[axis]) == 0, "gather: the index at the axis must be 0")
    return Gather(where.shape, x.dtype, x, where, axis, index)


def extern(call: Call, position: int = 0) -> Node:
    """Result `position` of an ATen call."""
    shape, dtype, _ = call.results[position]
    return Extern(shape, dtype, call, position)


# ---------------------------------------------------------------- derived constructors (all Views)


def reshape(x: Node, shape: Shape) -> Node:
    """Row-major reinterpretation."""
    _require(prod(shape) == x.size, f"reshape: {x.shape} to {shape}")
    if not x.size:
        return const(0, x.dtype, shape)
    offset = offsets.flatten(ix.axes(shape), offsets.row_major(shape))
    return view(x, shape, offsets.unflatten(offset, x.shape))


def permute(x: Node, order: Iterable[int]) -> Node:
    """`out.shape[k] == x.shape[order[k]]`."""
    order = tuple(order)
    shape = tuple(x.shape[k] for k in order)
    out_axes = ix.axes(shape)
    return view(x, shape, tuple(out_axes[order.index(k)] for k in range(len(x.shape))))


def expand(x: Node, shape: Shape) -> Node:
    """NumPy broadcasting to `shape`."""
    lead = len(shape) - len(x.shape)
    _require(lead >= 0, f"expand: {x.shape} to {shape}")
    if isinstance(x, Const):
        return const(x.value, x.dtype, shape)
    out_axes = ix.axes(shape)[lead:]
    for n, m in zip(x.shape, shape[lead:], strict=True):
        _require(n in (1, m), f"expand: {x.shape} to {shape}")
    zero = ix.const(0)
    return view(
        x, shape, tuple(zero if n == 1 else v for n, v in zip(x.shape, out_axes, strict=True))
    )


def keep_axes(x: Node, axes: Iterable[int]) -> Node:
    """Insert axes of extent 1 at the (sorted, final) positions `axes`."""
    axes = sorted(axes)
    shape = list(x.shape)
    for a in axes:
        shape.insert(a, 1)
    out_axes = [v for k, v in enumerate(ix.axes(tuple(shape))) if k not in axes]
    return view(x, tuple(shape), out_axes)


def insert_expanded(x: Node, axes: Iterable[int], shape: Shape) -> Node:
    """Broadcast a reduction's result back: `axes` of `shape` are the ones x lacks."""
    return expand(keep_axes(x, axes), shape)


# ------------------------------------------------------------------------------------- whole graph

Path = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class InputSpec:
    """Where a graph input comes from at run time.

    `path` for role "input": the position among the flattened arguments of forward, then keys into
    nested structures; for the other roles: the attribute path from the module ("linear", "weight"),
    where an integer indexes a container. `strides` in elements, as captured. `literal` holds the
    row-major values of a constant that forward itself writes down (`torch.tensor([1.0, 2.0])`);
    its path is empty.
    """

    node: Input
    path: Path
    strides: tuple[int, ...]
    literal: tuple[Scalar, ...] | None = None

    @property
    def name(self) -> str:
        return self.node.name


@dataclass(frozen=True, slots=True)
class Mutation:
    """After the call, input `target` holds `value` (same shape and dtype)."""

    target: str
    value: Node


@dataclass(frozen=True, slots=True)
class Leaf:
    """Output tensor number `position` in the structure that forward returns."""

    position: int


@dataclass(frozen=True, slots=True)
class Tree:
    """A container in the structure that forward returns: `kind` tuple, list, dict or a class name.

    `keys` are the dict keys or field names ("" for tuple and list); `children` Leaf, Tree or a
    constant (`Verbatim` Python text).
    """

    kind: str
    keys: tuple[str | int, ...]
    children: tuple[Union["Tree", Leaf, Verbatim], ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """The user's code a node comes from: module path, source file line and its text."""

    module: str = ""
    line: int = 0
    text: str = ""


@dataclass(frozen=True, slots=True)
class Graph:
    """A captured forward pass.

    `outputs` are the tensors returned, with `output_strides` as eager returns them; `result` is the
    structure around them. `mutations` are applied after every read of the old value. `origins` maps
    nodes to the user's source and is metadata: it never decides what is computed. `aliases` maps
    the position of an output to the name of the input that eager returns as that very tensor.
    """

    inputs: tuple[InputSpec, ...]
    outputs: tuple[Node, ...]
    output_strides: tuple[tuple[int, ...], ...]
    result: Tree | Leaf | Verbatim
    mutations: tuple[Mutation, ...] = ()
    aliases: tuple[tuple[int, str], ...] = ()
    origins: Mapping[Node, Origin] = field(default_factory=dict)

    @property
    def roots(self) -> tuple[Node, ...]:
        """Everything that must be computed."""
        return (*self.outputs, *(m.value for m in self.mutations))

    def nodes(self) -> tuple[Node, ...]:
        """All nodes reachable from the roots, operands first."""
        return topological(self.roots)


def topological(roots: Iterable[Node]) -> tuple[Node, ...]:
    """Every node reachable from `roots` once, operands before users; iterative (deep graphs)."""
    done: dict[Node, None] = {}
    stack: list[tuple[Node, bool]] = [(r, False) for r in reversed(tuple(roots))]
    while stack:
        node, ready = stack.pop()
        if node in done:
            continue
        if ready:
            done[node] = None
        else:
            stack.append((node, True))
            stack.extend((o, False) for o in reversed(node.operands) if o not in done)
    return tuple(done)


def users(roots: Iterable[Node]) -> dict[Node, tuple[Node, ...]]:
    """For each reachable node, the nodes that have it as an operand (once each)."""
    out: dict[Node, list[Node]] = {}
    for n in topological(roots):
        out.setdefault(n, [])
        for o in dict.fromkeys(n.operands):
            out[o].append(n)
    return {n: tuple(us) for n, us in out.items()}


def rebuild(graph: Graph, change: Callable[[Node, tuple[Node, ...]], Node]) -> Graph:
    """The graph with every node replaced by `change(node, new operands)`, operands first."""
    new: dict[Node, Node] = {}
    origins = dict(graph.origins)
    for n in graph.nodes():
        operands = tuple(new[o] for o in n.operands)
        new[n] = out = change(n, operands)
        if n not in graph.origins:
            continue
        origins.setdefault(out, graph.origins[n])
        while isinstance(out, View | Cast) and out.x not in operands:
            out = out.x
            origins.setdefault(out, graph.origins[n])
    return replace(
        graph,
        outputs=tuple(new[o] for o in graph.outputs),
        mutations=tuple(Mutation(m.target, new[m.value]) for m in graph.mutations),
        origins=origins,
    )
