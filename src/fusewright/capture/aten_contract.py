"""Lowerings of sums of products: the matmul family, einsum and convolutions, as `Contract`.

A bias is a broadcast addition after it. 16-bit operands are accumulated in float32 and rounded
once. Attention stays a call: ATen's flash kernels beat the three ops it is made of.
"""

from collections.abc import Callable, Mapping, Sequence

from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir.graph import Node, Shape
from fusewright.ir.index import Conds, Index

from .operands import NotLowered, add, broadcast_shapes, mul, pointwise


def matmul(a: Node, b: Node) -> Node:
    """`torch.matmul`, all ranks: batch axes broadcast, 1-D operands lose their axis."""
    _require_numbers(a, b)
    row, column = len(a.shape) == 1, len(b.shape) == 1
    a = g.keep_axes(a, (0,)) if row else a
    b = g.keep_axes(b, (1,)) if column else b
    out = _batched(a, b)
    keep = list(out.shape)
    if column:
        keep.pop(-1)
    if row:
        keep.pop(-1 if column else -2)
    return g.reshape(out, tuple(keep))


def _batched(a: Node, b: Node) -> Node:
    batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
    (m, k), n = a.shape[-2:], b.shape[-1]
    shape = (*batch, m, n)
    *outer, i, j = ix.axes(shape)
    (r,) = g.reduced_axes((k,))
    a_index = (*_batch_index(a, outer), i, r)
    b_index = (*_batch_index(b, outer), r, j)
    return g.contract(a, b, shape, (k,), a_index, b_index)


def _batch_index(x: Node, outer: Sequence[Index]) -> tuple[Index, ...]:
    """The batch coordinates of an operand: its own trailing ones, 0 where it is broadcast."""
    extents = x.shape[:-2]
    own = outer[len(outer) - len(extents) :]
    return tuple(ix.const(0) if n == 1 else i for n, i in zip(extents, own, strict=True))


def _require_numbers(*xs: Node) -> None:
    if any(x.dtype.kind not in ("int", "float") or x.dtype != xs[0].dtype for x in xs):
        raise NotLowered("a contraction of bools or of mixed dtypes")


def linear(x: Node, weight: Node, bias: Node | None = None) -> Node:
    """`x @ weight.T + bias`; weight (out, in) or (in,)."""
    _require_numbers(x, weight)
    if len(weight.shape) == 1:
        out = matmul(x, weight)
    else:
        shape = (*x.shape[:-1], weight.shape[0])
        *lead, j = ix.axes(shape)
        (r,) = g.reduced_axes((x.shape[-1],))
        out = g.contract(x, weight, shape, (x.shape[-1],), (*lead, r), (j, r))
    return out if bias is None else pointwise(add, out, bias)


def _blend(x: Node, product: Node, beta: float, alpha: float) -> Node:
    """`beta * x + alpha * product`; beta = 0 ignores x altogether."""
    if beta == 0:
        return pointwise(lambda p: p if alpha == 1 else mul(p, alpha), product)

    def formula(v: Node, p: Node) -> Node:
        return add(p if alpha == 1 else mul(p, alpha), v if beta == 1 else mul(v, beta))

    return pointwise(formula, x, product)


def addmm(x: Node, a: Node, b: Node, *, beta: float = 1, alpha: float = 1) -> Node:
    """`beta * x + alpha * (a @ b)`: addmm, addmv, baddbmm."""
    return _blend(x, matmul(a, b), beta, alpha)


def addbmm(x: Node, a: Node, b: Node, *, beta: float = 1, alpha: float = 1) -> Node:
    """As addmm, the products summed over the batch."""
    _require_numbers(a, b)
    shape, reduced = (a.shape[1], b.shape[2]), (a.shape[0], a.shape[2])
    (i, j), (n, k) = ix.axes(shape), g.reduced_axes(reduced)
    return _blend(x, g.contract(a, b, shape, reduced, (n, i, k), (n, k, j)), beta, alpha)


def outer(a: Node, b: Node) -> Node:
    """Every product of an element of a with one of b: no sum, so no contraction."""
    return pointwise(mul, g.keep_axes(a, (1,)), g.keep_axes(b, (0,)))


def addr(x: Node, a: Node, b: Node, *, beta: float = 1, alpha: float = 1) -> Node:
    return _blend(x, outer(a, b), beta, alpha)


def bilinear(a: Node, b: Node, weight: Node, bias: Node | None = None) -> Node:
    """`out[.., o] = sum over i, j of a[.., i] weight[o, i, j] b[.., j] + bias[o]`."""
    _require_numbers(a, b, weight)
    *lead, _ = a.shape
    o, n, m = weight.shape
    shape = (*lead, o, m)
    *batch, out, j = ix.axes(shape)
    (r,) = g.reduced_axes((n,))
    half = g.contract(a, weight, shape, (n,), (*batch, r), (out, r, j))
    *batch, out = ix.axes((*lead, o))
    (r,) = g.reduced_axes((m,))
    full = g.contract(half, b, (*lead, o), (m,), (*batch, out, r), (*batch, r))
    return full if bias is None else pointwise(add, full, bias)


# ------------------------------------------------------------------------------------ convolution


def _spatial(values: Sequence[int], rank: int) -> tuple[int, ...]:
    """One value for each spatial axis; a single one counts for all."""
    return tuple(values) * rank if len(values) == 1 else tuple(values)


def convolution(
    x: Node,
    weight: Node,
    bias: Node | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Node:
    """`aten.convolution`, 1 to 3 spatial axes: x (N, C, ...).

    weight is (out, C / groups, kernel...), transposed (C, out / groups, kernel...).
    """
    _require_numbers(x, weight)
    rank = len(weight.shape) - 2
    if len(x.shape) == rank + 1:
        raise NotLowered("convolution without a batch axis")
    s, p, d, extra = (_spatial(v, rank) for v in (stride, padding, dilation, output_padding))
    if transposed:
        out = _transposed(x, weight, s, p, d, extra, groups)
    else:
        out = _forward(x, weight, s, p, d, groups)
    if bias is None:
        return out
    return pointwise(add, out, g.reshape(bias, (bias.size, *(1,) * rank)))


def _forward(
    x: Node,
    weight: Node,
    stride: Shape,
    padding: Shape,
    dilation: Shape,
    groups: int,
) -> Node:
    """`out[n, o, p] = sum over c, k of x[n, c, p s - pad + k d] w[o, c, k]`."""
    out_channels, in_group, *kernel = weight.shape
    extents = tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(x.shape[2:], kernel, stride, padding, dilation, strict=True)
    )
    shape = (x.shape[0], out_channels, *extents)
    n, o, *place = ix.axes(shape)
    c, *taps = g.reduced_axes((in_group, *kernel))
    at = [
        i * s - p + k * d
        for i, k, s, p, d in zip(place, taps, stride, padding, dilation, strict=True)
    ]
    channel = (o // (out_channels // groups)) * in_group + c
    return g.contract(
        x,
        weight,
        shape,
        (in_group, *kernel),
        (n, channel, *at),
        (o, c, *taps),
        _all_inside(at, x.shape[2:]),
        family="convolution",
    )


def _all_inside(at: Sequence[Index], extents: Sequence[int]) -> Conds:
    conds = [c for i, n in zip(at, extents, strict=True) for c in ix.inside(i, n)]
    return ix.conjunction(conds)


def _transposed(
    x: Node,
    weight: Node,
    stride: Shape,
    padding: Shape,
    dilation: Shape,
    output_padding: Shape,
    groups: int,
) -> Node:
    """`out[n, o, p] = sum over c, k of x[n, c, q] w[c, o, k]` where `q s = p + pad - k d`."""
    in_channels, out_group, *kernel = weight.shape
    in_group = in_channels // groups
    extents = tuple(
        (n - 1) * s - 2 * p + d * (k - 1) + e + 1
        for n, k, s, p, d, e in zip(
            x.shape[2:], kernel, stride, padding, dilation, output_padding, strict=True
        )
    )
    shape = (x.shape[0], out_group * groups, *extents)
    n, o, *place = ix.axes(shape)
    c, *taps = g.reduced_axes((in_group, *kernel))
    scaled = [i + p - k * d for i, k, p, d in zip(place, taps, padding, dilation, strict=True)]
    at = [q // s for q, s in zip(scaled, stride, strict=True)]
    whole = [ix.equals(q % s, 0) for q, s in zip(scaled, stride, strict=True)]
    channel = (o // out_group) * in_group + c
    return g.contract(
        x,
        weight,
        shape,
        (in_group, *kernel),
        (n, channel, *at),
        (channel, o % out_group, *taps),
        ix.conjunction((*whole, *_all_inside(at, x.shape[2:]))),
        family="convolution",
    )


# ----------------------------------------------------------------------------------------- einsum


def einsum(equation: str, operands: Sequence[Node], *, path: Sequence[int] | None = None) -> Node:
    """`torch.einsum`, pairs contracted from left to right (or in the given `path`)."""
    inputs, output = _labels(equation.replace(" ", ""), operands)
    terms = [_diagonals(x, names) for x, names in zip(operands, inputs, strict=True)]
    pairs = list(path) if path else [0, 1] * (len(terms) - 1)
    for first, second in zip(pairs[::2], pairs[1::2], strict=True):
        a, b = terms[first], terms[second]
        terms = [term for k, term in enumerate(terms) if k not in (first, second)]
        wanted = output + "".join(names for _, names in terms)
        terms = [_product(a, b, wanted), *terms] if not path else [*terms, _product(a, b, wanted)]
    x, names = _sum_out(terms[0], output)
    return g.permute(x, (names.index(label) for label in output))


def _labels(equation: str, operands: Sequence[Node]) -> tuple[list[str], str]:
    """One letter for each axis of each operand, and of the output; `...` spelled out."""
    left, _, right = equation.partition("->")
    terms = left.split(",")
    used = set(equation)
    spare = [chr(c) for c in range(ord("À"), ord("À") + 64) if chr(c) not in used]
    longest = max(
        (len(x.shape) - len(t.replace("...", "")) for t, x in zip(terms, operands) if "..." in t),
        default=0,
    )
    dots = "".join(spare[:longest])

    def spelled(term: str, x: Node) -> str:
        missing = len(x.shape) - len(term.replace("...", ""))
        return term.replace("...", dots[longest - missing :] if missing else "")

    inputs = [spelled(t, x) for t, x in zip(terms, operands, strict=True)]
    if "->" in equation:
        return inputs, right.replace("...", dots)
    letters = "".join(inputs)
    once = sorted(c for c in set(letters) if letters.count(c) == 1 and c not in dots)
    return inputs, dots + "".join(once)


Term = tuple[Node, str]


def _diagonals(x: Node, names: str) -> Term:
    """A repeated letter means the diagonal."""
    unique = "".join(dict.fromkeys(names))
    if unique == names:
        return x, names
    extents = dict(zip(names, x.shape, strict=True))
    shape = tuple(extents[c] for c in unique)
    at = dict(zip(unique, ix.axes(shape), strict=True))
    return g.view(x, shape, (at[c] for c in names)), unique


def _sum_out(term: Term, wanted: str) -> Term:
    x, names = term
    gone = [k for k, c in enumerate(names) if c not in wanted]
    kept = "".join(c for c in names if c in wanted)
    if not gone:
        return term
    if not x.dtype.is_float:
        raise NotLowered("einsum that sums integers of one operand")
    return pointwise(lambda v: g.reduce("sum", v, gone), x), kept


def _product(a: Term, b: Term, wanted: str) -> Term:
    """The sum of products over the letters that nobody wants any more."""
    (x, xs), (y, ys) = _sum_out(a, wanted + b[1]), _sum_out(b, wanted + a[1])
    _require_numbers(x, y)
    kept = "".join(c for c in dict.fromkeys(xs + ys) if c in wanted)
    summed = "".join(c for c in dict.fromkeys(xs + ys) if c not in wanted)
    extents = _common_extents((x, xs), (y, ys))
    shape, reduced = (tuple(extents[c] for c in names) for names in (kept, summed))
    if not summed:
        return pointwise(mul, _laid_out(x, xs, kept), _laid_out(y, ys, kept)), kept
    at = dict(zip(kept + summed, (*ix.axes(shape), *g.reduced_axes(reduced)), strict=True))
    return g.contract(x, y, shape, reduced, _at(x, xs, at), _at(y, ys, at)), kept


def _common_extents(*terms: Term) -> dict[str, int]:
    """The extent of each letter; 1 broadcasts."""
    out: dict[str, int] = {}
    for x, names in terms:
        for c, n in zip(names, x.shape, strict=True):
            out[c] = n if out.get(c, 1) == 1 else out[c]
    return out


def _at(x: Node, names: str, at: Mapping[str, Index]) -> tuple[Index, ...]:
    return tuple(ix.const(0) if n == 1 else at[c] for c, n in zip(names, x.shape, strict=True))


def _laid_out(x: Node, names: str, target: str) -> Node:
    """x with its axes in the order of `target`, extent 1 where it has none."""
    present = [c for c in target if c in names]
    ordered = g.permute(x, (names.index(c) for c in present))
    return g.keep_axes(ordered, [k for k, c in enumerate(target) if c not in names])


TABLE: Mapping[str, Callable[..., Node]] = {
    **{f"aten.{op}.default": matmul for op in ("matmul", "mm", "bmm", "mv", "dot", "vdot")},
    "aten.linalg_matmul.default": matmul,
    "aten.linear.default": linear,
    **{f"aten.{op}.default": addmm for op in ("addmm", "addmv", "baddbmm")},
    "aten.addbmm.default": addbmm,
    "aten.addr.default": addr,
    "aten.outer.default": outer,
    "aten.ger.default": outer,
    "aten.bilinear.default": bilinear,
    "aten.convolution.default": convolution,
    "aten.einsum.default": einsum,
}
