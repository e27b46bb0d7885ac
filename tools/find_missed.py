"""Looks for missed rewrites: random programs whose least work is known, because they grew from it.

    PYTHONPATH=src python tools/find_missed.py --programs 1000 [--seed 0]

A program starts as a small graph at its optimum. Identities are then applied backwards at random:
sums move outside products, products change their order, functions go below maxima, and inverse
pairs are put around values. The engine should find its way back. What stays above the optimum's
float operations is printed as equations; the exit status is 1 if there is any.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from random import Random

from fusewright.context import Context
from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir.convolution import convolution, transposed_convolution
from fusewright.ir.text import graph_text
from fusewright.options import Options
from fusewright.rewrite import rewrite
from fusewright.rewrite.contract import matmul
from fusewright.rewrite.rule import CLASSES
from fusewright.rewrite.samples import Draw, graph_of
from fusewright.target.cost import graph_cost, node_flops

# Above the optimum by less than this factor is as good as found.
SLACK = 1.1
# For convolutions, whose optimum is stated as operations: borders are counted in round numbers.
ROUGH_SLACK = 1.5
M, N, K = 48, 64, 32

# The optimum (or the float operations that are known to do), and the program.
Pair = tuple[g.Node | int, g.Node]


def row_sums(draw: Draw) -> Pair:
    """x @ (the sum of w's columns), and the sum of the product's rows."""
    x, w = draw.tensor((M, K)), draw.tensor((K, N))
    column = g.keep_axes(g.reduce("sum", w, (1,)), (1,))
    whole = grown(matmul(x, w), draw)
    return g.reduce("sum", matmul(x, column), (1,)), g.reduce("sum", whole, (1,))


def column_sums(draw: Draw) -> Pair:
    x, w = draw.tensor((M, K)), draw.tensor((K, N))
    row = g.keep_axes(g.reduce("sum", x, (0,)), (0,))
    return g.reduce("sum", matmul(row, w), (0,)), g.reduce("sum", grown(matmul(x, w), draw), (0,))


def chain(draw: Draw) -> Pair:
    """A product of three that is thin on the right."""
    a, b, v = draw.tensor((M, N)), draw.tensor((N, K)), draw.tensor((K, 1))
    return matmul(a, matmul(b, v)), matmul(grown(matmul(a, b), draw), v)


def shared(draw: Draw) -> Pair:
    """x @ (v + w)."""
    x, v, w = draw.tensor((M, K)), draw.tensor((K, N)), draw.tensor((K, N))
    whole = g.binary("add", grown(matmul(x, v), draw), grown(matmul(x, w), draw))
    return matmul(x, g.binary("add", v, w)), whole


def extremum(draw: Draw) -> Pair:
    """A monotone function of a maximum."""
    x = draw.tensor((M, N))
    op = draw.pick(("tanh", "exp", "sigmoid", "erf", "atan"))
    top = g.unary(op, g.reduce("max", x, (1,)))
    return top, g.reduce("max", grown(g.unary(op, grown(x, draw)), draw), (1,))


def some_rows(draw: Draw) -> Pair:
    """A product of the first rows only."""
    x, w = draw.tensor((M, K)), draw.tensor((K, N))
    first = g.view(x, (2, K), g.input_("shape", (2, K), x.dtype).axes)
    whole = grown(matmul(x, w), draw)
    return matmul(first, w), g.view(whole, (2, N), g.input_("shape", (2, N), x.dtype).axes)


def sum_of_chain(draw: Draw) -> Pair:
    """All rows of a product of three, summed: vectors only."""
    a, b, c = draw.tensor((M, N)), draw.tensor((N, K)), draw.tensor((K, N))
    right = g.keep_axes(g.reduce("sum", c, (1,)), (1,))
    best = g.reduce("sum", matmul(a, matmul(b, right)), (1,))
    whole = grown(matmul(grown(matmul(a, grown(b, draw)), draw), c), draw)
    return best, g.reduce("sum", whole, (1,))


def pools(draw: Draw) -> Pair:
    """A monotone function of a maximum over windows of windows."""
    x = draw.tensor((M, N))
    once = g.unary("tanh", g.reduce("max", g.reshape(x, (M, N // 8, 8)), (2,)))
    inner = g.reduce("max", g.reshape(grown(x, draw), (M, N // 4, 4)), (2,))
    outer = g.reshape(grown(g.unary("tanh", grown(inner, draw)), draw), (M, N // 8, 2))
    return once, g.reduce("max", outer, (2,))


def normalised(draw: Draw) -> Pair:
    """A softmax whose rows were shifted; the sum of one is a constant."""
    x = draw.tensor((M, N))
    best = g.const(1.0, x.dtype, (M,))
    f = g.unary("exp", grown(g.binary("sub", x, draw.row((M, N), (0,))), draw))
    total = g.insert_expanded(g.reduce("sum", f, (1,)), (1,), f.shape)
    return best, g.reduce("sum", grown(g.binary("div", f, total), draw), (1,))


def repeated(draw: Draw) -> Pair:
    """Both sides of a difference are one product."""
    x, w = draw.tensor((M, K)), draw.tensor((K, N))
    y = matmul(x, w)
    c = draw.like(draw.above(), y)
    twice = g.binary("sub", g.binary("mul", grown(y, draw), c), grown(y, draw))
    return g.binary("mul", y, c), twice


# ----------------------------------------------------------------- linear maps behind convolutions


@dataclass(frozen=True)
class _Convolved:
    """A random convolution y of x with w, and multiply-adds that a sum over y's space needs."""

    x: g.Node
    w: g.Node
    y: g.Node
    transposed: bool

    @property
    def space(self) -> tuple[int, ...]:
        return tuple(range(2, len(self.y.shape)))

    @property
    def per_point(self) -> int:
        """Float operations of one point of y."""
        taps = prod(self.w.shape[2:])
        assert isinstance(self.y, g.Contract)
        return node_flops(self.y) // self.y.size if self.transposed else 2 * self.w.shape[1] * taps


def _convolved(draw: Draw, stride: int | None = None) -> _Convolved:
    """One to three axes of space; strides, padding, dilation and groups; or transposed."""
    rank = draw.extent(1, 3)
    extents = tuple(
        draw.extent(*{1: (60, 90), 2: (18, 26), 3: (10, 12)}[rank]) for _ in range(rank)
    )
    groups, channels, outer = draw.pick((1, 1, 2)), 16, 32
    taps = tuple(draw.pick((1, 2, 3)) for _ in range(rank))
    steps = tuple(stride or draw.pick((1, 1, 2)) for _ in range(rank))
    padding = tuple(draw.extent(0, t // 2) for t in taps)
    dilation = tuple(draw.pick((1, 1, 2)) for _ in range(rank))
    x = draw.tensor((4, channels, *extents))
    if transposed := draw.chance():
        w = draw.tensor((channels, outer // groups, *taps))
        y = transposed_convolution(x, w, steps, padding, dilation, groups, (0,) * rank)
    else:
        w = draw.tensor((outer, channels // groups, *taps))
        y = convolution(x, w, steps, padding, dilation, groups)
    return _Convolved(x, w, y, transposed)


def space_mean(draw: Draw) -> Pair:
    """Sums of x below each tap (x once and its borders), then a product of them with w."""
    c = _convolved(draw)
    rows = 2 * c.w.size * c.x.shape[0]
    total = g.reduce("sum", grown(c.y, draw), c.space)
    return 2 * c.x.size + rows + 2 * total.size, g.binary("div", total, draw.like(7.0, total))


def rows_of_space(draw: Draw) -> Pair:
    """The sum over one axis of space: a convolution over one axis less."""
    c = _convolved(draw)
    axis = draw.pick(c.space)
    total = g.reduce("sum", grown(c.y, draw), (axis,))
    taps = c.w.shape[axis]
    # Along the axis every tap of x's border-corrected sum meets its own slice of w.
    work = 2 * c.x.size * max(1, taps) + node_flops(c.y) * taps // c.y.shape[axis]
    dense = total.size * 2 * c.w.size // (c.w.shape[1] if c.transposed else c.w.shape[0])
    return min(max(work, dense), node_flops(c.y) + c.y.size), total


def batch_sum(draw: Draw) -> Pair:
    """The sum over the batch: x summed first."""
    c = _convolved(draw)
    total = g.reduce("sum", grown(c.y, draw), (0,))
    return c.x.size + node_flops(c.y) // c.x.shape[0] + total.size, total


def channel_sum(draw: Draw) -> Pair:
    """The sum over all output channels: w summed first."""
    c = _convolved(draw)
    total = g.reduce("sum", grown(c.y, draw), (1,))
    groups = c.y.shape[1] // c.w.shape[1] if c.transposed else c.x.shape[1] // c.w.shape[1]
    return c.w.size + groups * node_flops(c.y) // c.y.shape[1] + groups * total.size, total


def part_of_space(draw: Draw) -> Pair:
    """The first third of the outputs along an axis of space."""
    c = _convolved(draw)
    axis = draw.pick(c.space)
    n = -(-c.y.shape[axis] // 3)
    shape = tuple(n if k == axis else e for k, e in enumerate(c.y.shape))
    part = g.view(grown(c.y, draw), shape, ix.axes(shape))
    return node_flops(c.y) * n // c.y.shape[axis], part


def two_filters(draw: Draw) -> Pair:
    """conv(x, v) + conv(x, w) = conv(x, v + w)."""
    c = _convolved(draw)
    assert isinstance(c.y, g.Contract)
    other = c.y.with_operands((c.x, draw.tensor(c.w.shape)))
    whole = g.binary("sub", grown(c.y, draw), grown(other, draw))
    return node_flops(c.y) + c.w.size, whole


def centred(draw: Draw) -> Pair:
    """A bias under the mean over everything but channels, subtracted: the bias cancels."""
    c = _convolved(draw)
    axes = (0, *c.space)
    y = g.binary("add", grown(c.y, draw), draw.row(c.y.shape, (1,)))
    total = g.reduce("sum", y, axes)
    mean = g.binary("div", total, draw.like(c.y.size / c.y.shape[1], total))
    out = g.binary("sub", y, g.insert_expanded(mean, axes, y.shape))
    return node_flops(c.y) + 2 * c.y.size, out


FAMILIES: tuple[Callable[[Draw], Pair], ...] = (
    row_sums,
    column_sums,
    chain,
    shared,
    extremum,
    some_rows,
    sum_of_chain,
    pools,
    normalised,
    repeated,
    space_mean,
    rows_of_space,
    batch_sum,
    channel_sum,
    part_of_space,
    two_filters,
    centred,
)


def grown(x: g.Node, draw: Draw) -> g.Node:
    """`x` inside up to five inverse pairs or other identities."""
    for _ in range(draw.extent(0, 5)):
        x = draw.pick(IDENTITIES)(x, draw)
    return x


def _scaled(x: g.Node, draw: Draw) -> g.Node:
    c = draw.like(draw.above(), x)
    return g.binary("div", g.binary("mul", x, c), c)


def _shifted(x: g.Node, draw: Draw) -> g.Node:
    p = draw.row(x.shape, (1,))
    return g.binary("sub", g.binary("add", x, p), p)


def _turned(x: g.Node, draw: Draw) -> g.Node:
    back = tuple(reversed(range(len(x.shape))))
    return g.permute(g.unary("neg", g.permute(g.unary("neg", x), back)), back)


def _joined(x: g.Node, draw: Draw) -> g.Node:
    both = g.concat([x, draw.tensor(x.shape)], 0)
    return g.view(both, x.shape, x.axes)


def _logged(x: g.Node, draw: Draw) -> g.Node:
    return g.unary("log", g.unary("exp", x))


def _reshaped(x: g.Node, draw: Draw) -> g.Node:
    return g.reshape(g.reshape(x, (x.size,)), x.shape)


IDENTITIES = (_scaled, _shifted, _turned, _joined, _logged, _reshaped)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the programs and reports; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--programs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--numerics", choices=CLASSES, default="finite")
    chosen = parser.parse_args(arguments)
    tried, missed, start = Counter[str](), Counter[str](), time.monotonic()
    for seed in range(chosen.seed, chosen.seed + chosen.programs):
        family = FAMILIES[seed % len(FAMILIES)]
        draw = Draw(Random(seed))
        best, program = family(draw)
        program = grown(program, draw) if len(program.shape) > 1 else program
        tried[family.__name__] += 1
        after, _ = rewrite(graph_of(program), Context(Options(numerics=chosen.numerics)))
        found = graph_cost(after.roots).flops
        known = isinstance(best, int)
        least = best if isinstance(best, int) else graph_cost((best,)).flops
        if found > (ROUGH_SLACK if known else SLACK) * least:
            missed[family.__name__] += 1
            print(f"seed {seed}, {family.__name__}: {found} operations, {least} would do")
            print(graph_text(after), flush=True)
    print("| family | programs | above the optimum |\n| --- | --- | --- |")
    for name, count in tried.items():
        print(f"| {name} | {count} | {missed[name]} |")
    print(f"{sum(tried.values())} programs, {time.monotonic() - start:.0f} s", file=sys.stderr)
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
