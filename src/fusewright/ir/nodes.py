"""The nodes of a Graph: one class per tensor operation, immutable and content-addressed.

Nothing is checked or simplified here: build nodes through the constructors of `graph`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar, Literal, TypeAlias

from fusewright.errors import IRError

from . import index as ix
from .dtypes import DType
from .index import Conds, Index
from .keyed import Keyed

Scalar = float | int | bool
Shape = tuple[int, ...]
Role = Literal["input", "param", "buffer", "constant"]


@dataclass(frozen=True, slots=True, eq=False)
class Node(Keyed):
    """A tensor value. `shape` in elements, `dtype` its element type."""

    OPERANDS: ClassVar[tuple[str, ...]] = ()

    shape: Shape
    dtype: DType

    @property
    def operands(self) -> tuple["Node", ...]:
        """The nodes this one is computed from, in order."""
        return tuple(getattr(self, name) for name in self.OPERANDS)

    def with_operands(self, operands: tuple["Node", ...]) -> "Node":
        """The same operation on other operands of the same shapes and dtypes.

        Raises IRError when a shape or dtype differs: then the constructors must decide anew.
        """
        for old, new in zip(self.operands, operands, strict=True):
            if (old.shape, old.dtype) != (new.shape, new.dtype):
                raise IRError(f"{self.kind}: {old.dtype}{old.shape} for {new.dtype}{new.shape}")
        return self._rebuilt(operands)

    def _rebuilt(self, operands: tuple["Node", ...]) -> "Node":
        return replace(self, **dict(zip(self.OPERANDS, operands, strict=True)))

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.bytes

    @property
    def axes(self) -> tuple[Index, ...]:
        """The canonical index variables i0, i1, ... of this node's axes."""
        return ix.axes(self.shape)

    @property
    def kind(self) -> str:
        """Name of the operation, for people."""
        return type(self).__name__.lower()


@dataclass(frozen=True, slots=True, eq=False)
class Input(Node):
    """A tensor from outside: user input, parameter, buffer or constant, by unique name."""

    name: str
    role: Role


@dataclass(frozen=True, slots=True, eq=False)
class Const(Node):
    """One scalar value in every element."""

    value: Scalar


@dataclass(frozen=True, slots=True, eq=False)
class Iota(Node):
    """`out[i] = value(i)`: an integer tensor computed from its own index."""

    value: Index


@dataclass(frozen=True, slots=True, eq=False)
class Unary(Node):
    """`out[i] = op(x[i])`."""

    OPERANDS: ClassVar[tuple[str, ...]] = ("x",)

    op: str
    x: Node

    @property
    def kind(self) -> str:
        return self.op


@dataclass(frozen=True, slots=True, eq=False)
class Binary(Node):
    """`out[i] = op(a[i], b[i])`."""

    OPERANDS: ClassVar[tuple[str, ...]] = ("a", "b")

    op: str
    a: Node
    b: Node

    @property
    def kind(self) -> str:
        return self.op


@dataclass(frozen=True, slots=True, eq=False)
class Where(Node):
    """`out[i] = a[i] if cond[i] else b[i]`."""

    OPERANDS: ClassVar[tuple[str, ...]] = ("cond", "a", "b")

    cond: Node
    a: Node
    b: Node


@dataclass(frozen=True, slots=True, eq=False)
class Cast(Node):
    """`out[i] = dtype(x[i])`, rounded to nearest even for floats, toward zero to ints."""

    OPERANDS: ClassVar[tuple[str, ...]] = ("x",)

    x: Node


@dataclass(frozen=True, slots=True, eq=False)
class View(Node):
    """`out[i] = x[index(i)] if valid(i) else fill`: every change of layout.

    `index` has one expression per axis of x, over the variables of the output's axes. It must be in
    bounds wherever `valid` holds.
    """

    OPERANDS: ClassVar[tuple[str, ...]] = ("x",)

    x: Node
    index: tuple[Index, ...]
    valid: Conds
    fill: Scalar


@dataclass(frozen=True, slots=True, eq=False)
class Concat(Node):
    """The operands one after the other along `axis`."""

    xs: tuple[Node, ...]
    axis: int

    @property
    def operands(self) -> tuple[Node, ...]:
        return self.xs

    def _rebuilt(self, operands: tuple[Node, ...]) -> Node:
        return replace(self, xs=operands)


@dataclass(frozen=True, slots=True, eq=False)
class Reduce(Node):
    """`out[p] = fold(op, x[p, r] for all r)`; the reduced axes (sorted) leave the shape."""

    OPERANDS: ClassVar[tuple[str, ...]] = ("x",)

    op: str
    x: Node
    axes_reduced: tuple[int, ...]

    @property
    def kind(self) -> str:
        return f"reduce_{self.op}"


@dataclass(frozen=True, slots=True, eq=False)
class ArgReduce(Node):
    """Index (int64) along `axis` of the extreme value: the first NaN, else the first tie."""

    OPERANDS: ClassVar[tuple[str, ...]] = ("x",)

    op: Literal["argmax", "argmin"]
    x: Node
    axis: int

    @property
    def kind(self) -> str:
        return self.op


@dataclass(frozen=True, slots=True, eq=False)
class Scan(Node):
    """`out[i] = fold(op, x[j] for all j <= i along axis)`: a running fold.

    `reverse`: for all j >= i. `exclusive`: without j == i, from the identity. argmax and argmin
    give the position (int64) of the extreme value: NaN before all others, of ties the one met last.
    """

    OPERANDS: ClassVar[tuple[str, ...]] = ("x",)

    op: str
    x: Node
    axis: int
    reverse: bool
    exclusive: bool

    @property
    def kind(self) -> str:
        return f"cum{self.op}"


@dataclass(frozen=True, slots=True, eq=False)
class Contract(Node):
    """`out[i] = sum over r of a[a_index(i, r)] * b[b_index(i, r)]`: every matmul and convolution.

    Output axes are the variables i0, i1, ...; reduced axes r0, r1, ... with extents `reduced`. An
    operand counts as zero where its `valid` conditions fail. Products are accumulated in (at least)
    the compute type of the operands and rounded once to `dtype`. `family` says which of eager's
    precision switches governs it ("matmul" or "convolution"; an exact convolution is of terms of
    its operands, and none does).
    """

    OPERANDS: ClassVar[tuple[str, ...]] = ("a", "b")

    a: Node
    b: Node
    reduced: Shape
    a_index: tuple[Index, ...]
    b_index: tuple[Index, ...]
    a_valid: Conds
    b_valid: Conds
    family: Literal["matmul", "convolution", "exact convolution"]

    @property
    def reduced_axes(self) -> tuple[Index, ...]:
        return tuple(ix.var(f"r{k}", n) for k, n in enumerate(self.reduced))

    @property
    def flops(self) -> int:
        return 2 * self.size * prod(self.reduced)

    @property
    def kind(self) -> str:
        return self.family.removeprefix("exact ")


@dataclass(frozen=True, slots=True, eq=False)
class Gather(Node):
    """`out[i] = x[..., where[i] at axis, ...]`; the other coordinates are `index(i)`.

    `where` is an integer tensor of the output's shape with values in [0, x.shape[axis]); the entry
    of `index` at `axis` is ignored and must be the constant 0. Kernels check the bounds.
    """

    OPERANDS: ClassVar[tuple[str, ...]] = ("x", "where")

    x: Node
    where: Node
    axis: int
    index: tuple[Index, ...]


@dataclass(frozen=True, slots=True)
class Device:
    """Stands for "the device of the inputs" among the arguments of a call."""


@dataclass(frozen=True, slots=True)
class Verbatim:
    """An argument spelled as Python text, e.g. `torch.contiguous_format`."""

    text: str


Arg: TypeAlias = (
    "Node | DType | Device | Verbatim | str | float | int | bool | tuple[Arg, ...] | None"
)


@dataclass(frozen=True, slots=True, eq=False)
class Call(Keyed):
    """A call of the ATen operator `op` (e.g. "aten.cumsum.default"): the honest way out.

    `results` are the (shape, dtype, strides) of its tensor results. `order` is the position among
    calls that draw random numbers, None for a pure operator: calls with an order are neither
    merged nor moved past each other.

    `operand_strides` are the strides in which eager hands over the tensors among `args` and
    `kwargs`, in the order of `Extern.operands`; empty when all are row-major. They decide which
    random number goes to which element, and the strides of the results.
    """

    op: str
    args: tuple[Arg, ...]
    kwargs: tuple[tuple[str, Arg], ...]
    results: tuple[tuple[Shape, DType, tuple[int, ...]], ...]
    order: int | None = None
    operand_strides: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Extern(Node):
    """Result number `position` of a Call."""

    call: Call
    position: int

    @property
    def operands(self) -> tuple[Node, ...]:
        return tuple(_nodes_in((self.call.args, tuple(v for _, v in self.call.kwargs))))

    def _rebuilt(self, operands: tuple[Node, ...]) -> Node:
        rest = iter(operands)
        args = tuple(_replace_nodes(a, rest) for a in self.call.args)
        kwargs = tuple((k, _replace_nodes(v, rest)) for k, v in self.call.kwargs)
        return replace(self, call=replace(self.call, args=args, kwargs=kwargs))

    @property
    def kind(self) -> str:
        return self.call.op


def _nodes_in(arg: object) -> Iterator[Node]:
    if isinstance(arg, Node):
        yield arg
    elif isinstance(arg, tuple):
        for a in arg:
            yield from _nodes_in(a)


def _replace_nodes(arg: Arg, rest: Iterator[Node]) -> Arg:
    if isinstance(arg, Node):
        return next(rest)
    return tuple(_replace_nodes(a, rest) for a in arg) if isinstance(arg, tuple) else arg
