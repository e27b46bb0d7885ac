"""Small builders and readers of nodes that several families of rules share. No rule lives here."""

from collections.abc import Iterable, Sequence
from math import prod

from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir.graph import Node, Scalar, Shape
from fusewright.ir.index import Conds, Index


def mapping(shape: Shape, index: Sequence[Index]) -> dict[Index, Index]:
    """The substitution of a shape's axis variables by `index`."""
    return {v: e for v, e in zip(ix.axes(shape), index, strict=True) if isinstance(v, ix.Var)}


def value_of(x: Node) -> Scalar | None:
    """The one value that every element of `x` has, if it is a constant."""
    if isinstance(x, g.View) and isinstance(x.x, g.Const) and not x.valid:
        return x.x.value
    return x.value if isinstance(x, g.Const) else None


def split_const(node: g.Binary) -> tuple[Node, Scalar] | None:
    """The other operand and the value, when one operand of a commutative op is a constant."""
    if (c := value_of(node.b)) is not None:
        return node.a, c
    if (c := value_of(node.a)) is not None:
        return node.b, c
    return None


def is_op(x: Node, op: str) -> bool:
    return isinstance(x, g.Unary | g.Binary) and x.op == op


def like(value: Scalar, x: Node) -> Node:
    """`value` in the shape and dtype of x."""
    return g.const(value, x.dtype, x.shape)


def scaled(x: Node, factor: Scalar) -> Node:
    """x * factor, without the multiplication by one."""
    return x if factor == 1 else g.binary("mul", x, like(factor, x))


def pointwise(node: Node, operands: Sequence[Node]) -> Node:
    """The pointwise operation of `node` on operands of another common shape."""
    match node:
        case g.Unary():
            return g.unary(node.op, *operands)
        case g.Binary():
            return g.binary(node.op, *operands)
        case g.Where():
            return g.where(*operands)
        case g.Cast():
            return g.cast(operands[0], node.dtype)
        case _:
            raise TypeError(f"{node.kind} is not pointwise")


def through_view(
    x: Node, shape: Shape, index: Sequence[Index], valid: Conds = (), fill: Scalar = 0
) -> Node:
    """`g.view`, composed with the views below it and dissolved in constants."""
    index = tuple(index)
    if isinstance(x, g.Const) and (not valid or x.value == fill):
        return g.const(x.value, x.dtype, shape)
    if valid == ix.FALSE:
        return g.const(fill, x.dtype, shape)
    if isinstance(x, g.View) and (not x.valid or not valid or x.fill == fill):
        inner = mapping(x.shape, index)
        conds = ix.conjunction((*valid, *ix.substitute_conds(x.valid, inner)))
        below = [ix.substitute(e, inner) for e in x.index]
        return through_view(x.x, shape, below, conds, x.fill if x.valid else fill)
    if valid and not prod(shape):
        return g.const(fill, x.dtype, shape)
    return g.view(x, shape, index, valid, fill)


def used_axes(index: Iterable[Index], valid: Conds, shape: Shape) -> frozenset[int]:
    """The axes of `shape` on which the expressions depend."""
    found = set(ix.variables(*index, *(c.x for c in valid)))
    return frozenset(k for k, v in enumerate(ix.axes(shape)) if v in found)


def dependent_axes(x: Node) -> frozenset[int]:
    """The axes along which `x` can vary, as far as its outermost operation tells."""
    if isinstance(x, g.Const):
        return frozenset()
    if isinstance(x, g.View):
        return used_axes(x.index, x.valid, x.shape)
    if isinstance(x, g.Iota):
        return used_axes((x.value,), (), x.shape)
    return frozenset(k for k, n in enumerate(x.shape) if n > 1)


def drop_axes(x: Node, axes: Iterable[int]) -> Node:
    """`x` without `axes`, taken at position 0 along them."""
    axes = frozenset(axes)
    kept = [k for k in range(len(x.shape)) if k not in axes]
    shape = tuple(x.shape[k] for k in kept)
    position = dict(zip(kept, ix.axes(shape), strict=True))
    if isinstance(x, g.Iota):
        at = mapping(x.shape, [position.get(k, ix.const(0)) for k in range(len(x.shape))])
        return g.iota(ix.substitute(x.value, at), shape, x.dtype)
    index = [position.get(k, ix.const(0)) for k in range(len(x.shape))]
    return through_view(x, shape, index)


def restored(x: Node, axes: Iterable[int], shape: Shape) -> Node:
    """The inverse of `drop_axes`: `x` broadcast along `axes` of `shape`."""
    axes = frozenset(axes)
    kept = [v for k, v in enumerate(ix.axes(shape)) if k not in axes]
    return through_view(x, shape, kept)
