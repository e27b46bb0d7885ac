"""Contractions and foreign ops as library calls over strided views of buffers.

A contraction is recognised from its index maps alone (`Contract` has no other record of what it
was): plain variables make it a (batched) matrix product, `ir.convolution` finds convolutions.
What is not recognised is refused here and becomes a loop nest.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from typing import TypeAlias

from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir import offsets
from fusewright.ir.conv_product import ConvShape, conv_of
from fusewright.ir.convolution import Parameters, recognise
from fusewright.ir.index import Index, Var
from fusewright.ir.kernel import LibraryArg, Strided
from fusewright.ir.matmul import Roles, roles
from fusewright.target.cost import node_flops

# What a convolution by our kernel is called until it is one: of rounded operands, of terms.
CONV_PRODUCT, EXACT_CONV_PRODUCT = "conv_product", "exact_conv_product"

# A node at coordinates as a strided view of memory: (node that must be stored, strides per
# variable, offset).
StridedView = tuple[g.Node, dict[Index, int], int]
View = Callable[[g.Node, tuple[Index, ...]], StridedView | None]


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor argument: `base` must be in memory; the view's shape, strides and offset."""

    base: g.Node
    shape: g.Shape
    strides: tuple[int, ...]
    offset: int = 0


@dataclass(frozen=True, slots=True)
class CallPlan:
    """A library call before buffers have names.

    `strides` are those of the result, seen with the axes of the level-1 node.
    """

    function: str
    args: tuple["PlanArg", ...]
    kwargs: tuple[tuple[str, "PlanArg"], ...]
    strides: tuple[int, ...]
    flops: int
    covers: tuple[str, ...]

    @property
    def operands(self) -> tuple[Operand, ...]:
        return tuple(a for a in self.args if isinstance(a, Operand))


PlanArg: TypeAlias = "Operand | g.Arg | tuple[PlanArg, ...]"


def plan_contract(
    c: g.Contract, bias: g.Node | None, view: View, channels_last: bool
) -> CallPlan | None:
    """The library call for a contraction plus an optional bias (same shape), or None.

    A convolution that takes and gives `channels_last` memory adds no bias: what follows it does.
    """
    if (conv := conv_of(c)) is not None:
        return _plan_product(c, conv, view) if bias is None else None
    if (parameters := recognise(c)) is not None:
        if channels_last:
            return None if bias is not None else _plan_channels_last(c, parameters, view)
        return _plan_convolution(c, parameters, bias, view)
    return _plan_matmul(c, bias, view)


# ------------------------------------------------------------------------------- matrix products


def _plan_matmul(c: g.Contract, bias: g.Node | None, view: View) -> CallPlan | None:
    found = roles(c)
    if found is None or not (found.m and found.n and found.k):
        return None
    a_index, b_index, a, b = c.a_index, c.b_index, c.a, c.b
    if _axis_number(c, found.m[0]) > _axis_number(c, found.n[0]):
        # The result's rows are b's: compute the transposed product instead of transposing.
        found = Roles(found.batch, found.n, found.m, found.k)
        a, b, a_index, b_index = b, a, b_index, a_index
    left = _matrix(a, a_index, (found.batch, found.m, found.k), view)
    right = _matrix(b, b_index, (found.batch, found.k, found.n), view)
    order = (*found.batch, *found.m, *found.n)
    strides = dict(zip(order, offsets.row_major(_extents(order)), strict=True))
    result = tuple(strides.get(v, 1) for v in c.axes)
    if len(found.batch) == 0:
        function, args = "torch.mm", (left, right)
        added = _row_vector(bias, c, found.n, view) if bias is not None else None
        if added is not None:
            function, args = "torch.addmm", (added, left, right)
    else:
        function = "torch.bmm" if len(found.batch) == 1 else "torch.matmul"
        added, args = None, (left, right)
    if bias is not None and added is None:
        return None
    return CallPlan(function, args, (), result, node_flops(c), (_describe(c),))


def _describe(c: g.Contract) -> str:
    return f"{c.kind}{list(c.shape)} over {list(c.reduced)}"


def _axis_number(c: g.Contract, v: Index) -> int:
    return c.axes.index(v)


def _extents(variables: tuple[Index, ...]) -> tuple[int, ...]:
    return tuple(v.hi + 1 for v in variables)


def _matrix(
    x: g.Node, index: tuple[Index, ...], groups: tuple[tuple[Index, ...], ...], view: View
) -> Operand:
    """`x[index]` as (*batch, rows, columns); copied into that order where strides forbid a view."""
    batch, rows, columns = groups
    found = view(x, index)
    if found is not None:
        base, strides, offset = found
        r, c = _merged(rows, strides), _merged(columns, strides)
        if r is not None and c is not None:
            shape = (*_extents(batch), prod(_extents(rows)), prod(_extents(columns)))
            return _operand(base, shape, (*(strides[v] for v in batch), r, c), offset)
    order = (*batch, *rows, *columns)
    shape = _extents(order)
    renamed = dict(zip(order, ix.axes(shape), strict=True))
    copy = g.view(x, shape, tuple(ix.substitute(e, renamed) for e in index))
    # In the merged shape, for in the order's own the copy may be x itself, with x's strides.
    merged = (*_extents(batch), prod(_extents(rows)), prod(_extents(columns)))
    return _whole(g.reshape(copy, merged), view)


def _operand(base: g.Node, shape: g.Shape, strides: tuple[int, ...], offset: int) -> Operand:
    """The operand with the stride that a row-major tensor has along an axis of extent 1.

    No element depends on it, but libraries guess the layout (channels last?) from all strides.
    """
    natural: list[int] = []
    step = 1
    for n, s in zip(reversed(shape), reversed(strides), strict=True):
        natural.append(step if n == 1 else s)
        step = natural[-1] * max(n, 1)
    return Operand(base, shape, tuple(reversed(natural)), offset)


def _merged(variables: tuple[Index, ...], strides: dict[Index, int]) -> int | None:
    """The stride of several variables as one axis, if they are one."""
    for outer, inner in pairwise(variables):
        if strides[outer] != strides[inner] * (inner.hi + 1):
            return None
    return strides[variables[-1]] if variables else 1


def _row_vector(bias: g.Node, c: g.Contract, n: tuple[Index, ...], view: View) -> Operand | None:
    """The bias as a vector over the result's columns, if that is all it depends on."""
    found = view(bias, c.axes)
    if found is None:
        return None
    base, strides, offset = found
    if any(strides.get(v) for v in c.axes if v not in n and isinstance(v, Var)):
        return None
    step = _merged(n, strides)
    return None if step is None else Operand(base, (prod(_extents(n)),), (step,), offset)


# --------------------------------------------------------------------------------- convolutions


def _plan_convolution(
    c: g.Contract, p: Parameters, bias: g.Node | None, view: View
) -> CallPlan | None:
    x, w = (_whole(t, view) for t in (c.a, c.b))
    added: Operand | None = None
    if bias is not None:
        channel = c.axes[1]
        if not isinstance(channel, Var):
            return None
        added = _row_vector(bias, c, (channel,), view)
        if added is None:
            return None
    rank = len(c.shape) - 2
    if p.transposed:
        args = (x, w, added, p.stride, p.padding, p.output_padding, p.groups, p.dilation)
        function = f"torch.conv_transpose{rank}d"
    else:
        args = (x, w, added, p.stride, p.padding, p.dilation, p.groups)
        function = f"torch.conv{rank}d"
    strides = offsets.row_major(c.shape)
    return CallPlan(function, args, (), strides, node_flops(c), (_describe(c),))


def _plan_channels_last(c: g.Contract, p: Parameters, view: View) -> CallPlan:
    plain = _plan_convolution(c, p, None, view)
    assert plain is not None
    x = plain.operands[0]
    if x.strides != offsets.channels_last(c.a.shape):
        copy = g.permute(c.a, (0, *range(2, len(c.a.shape)), 1))
        x = Operand(copy, c.a.shape, offsets.channels_last(c.a.shape))
    return replace(plain, args=(x, *plain.args[1:]), strides=offsets.channels_last(c.shape))


def _plan_product(c: g.Contract, w: ConvShape, view: View) -> CallPlan:
    """No library has it: `skeletons` makes a kernel of every one."""
    operands = (_dense(t, view) for t in (c.a, c.b))
    args = (*operands, w.outer, w.taps, w.stride, w.before, w.dilation, w.phases)
    function = EXACT_CONV_PRODUCT if c.family == "exact convolution" else CONV_PRODUCT
    return CallPlan(function, args, (), w.result_strides, node_flops(c), (_describe(c),))


def _dense(x: g.Node, view: View) -> Operand:
    """`x` as contiguous memory."""
    found = _whole(x, view)
    dense = offsets.row_major(x.shape)
    return found if found.strides == dense else Operand(x, x.shape, dense)


def _whole(x: g.Node, view: View) -> Operand:
    found = view(x, x.axes)
    if found is None:
        return Operand(x, x.shape, offsets.row_major(x.shape))
    base, strides, offset = found
    return _operand(base, x.shape, tuple(strides.get(v, 1) for v in x.axes), offset)


# ---------------------------------------------------------------------------------- foreign ops


def plan_extern(call: g.Call, view: View) -> tuple[tuple[PlanArg, ...], dict[str, PlanArg]]:
    """Arguments of a foreign op with its tensors as strided views."""

    def convert(a: g.Arg) -> PlanArg:
        if isinstance(a, g.Node):
            return _whole(a, view)
        return tuple(convert(x) for x in a) if isinstance(a, tuple) else a  # type: ignore[return-value]

    return tuple(convert(a) for a in call.args), {k: convert(v) for k, v in call.kwargs}


def tensors_in(arg: object) -> tuple[Operand, ...]:
    """Every Operand in a (nested) argument."""
    if isinstance(arg, Operand):
        return (arg,)
    return tuple(o for a in arg for o in tensors_in(a)) if isinstance(arg, tuple) else ()


def bound(arg: PlanArg, name: Callable[[g.Node], tuple[str, int]]) -> LibraryArg:
    """The argument with its operands bound to buffers; `name` gives (buffer, offset) of a base."""
    if isinstance(arg, Operand):
        buffer, start = name(arg.base)
        return Strided(buffer, arg.shape, arg.strides, start + arg.offset)
    if isinstance(arg, tuple):
        return tuple(bound(a, name) for a in arg)  # type: ignore[arg-type]
    return arg
