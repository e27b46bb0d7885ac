"""Contractions in all but layout convolutions: the library's form has the same values."""

from random import Random

import pytest
import torch

from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir.convolution import convolution, recognise, transposed_convolution
from fusewright.ir.dtypes import FLOAT64
from fusewright.ir.matmul import roles
from fusewright.ir.windowed import as_library_form
from fusewright.run.interpret import interpret_graph
from schedule.graphs import graph_of


def some_convolution(draw: Random, transposed: bool) -> g.Contract:
    rank, channels, outer = draw.randint(1, 3), draw.randint(1, 3), draw.randint(1, 3)
    x = g.input_("x", (2, channels, *(draw.randint(6, 9) for _ in range(rank))), FLOAT64, "input")
    taps = tuple(draw.randint(2, 3) for _ in range(rank))
    stride, padding = draw.choice((1, 2, 3)), draw.choice((0, 0, 1))
    dilation = draw.choice((1, 1, 2))
    many = [[v] * rank for v in (stride, padding, dilation)]
    if transposed:
        w = g.input_("w", (channels, outer, *taps), FLOAT64, "param")
        c = transposed_convolution(x, w, *many, 1, [draw.randrange(stride)] * rank)
    else:
        w = g.input_("w", (outer, channels, *taps), FLOAT64, "param")
        c = convolution(x, w, *many, 1)
    assert isinstance(c, g.Contract)
    return c


def part_of(c: g.Contract, draw: Random) -> g.Contract:
    """`c` for a slice of its result, its summed axes counted from either end."""
    shape = tuple(draw.randint(max(1, n // 2), n) for n in c.shape)
    at = {
        v: i + draw.randint(0, n - m)
        for v, i, n, m in zip(c.axes, ix.axes(shape), c.shape, shape, strict=True)
    }
    for r in c.reduced_axes:
        if draw.random() < 0.5:
            at[r] = ix.const(r.hi) - r
    at = {v: e for v, e in at.items() if isinstance(v, ix.Var)}
    part = g.contract(
        c.a,
        c.b,
        shape,
        c.reduced,
        tuple(ix.substitute(e, at) for e in c.a_index),
        tuple(ix.substitute(e, at) for e in c.b_index),
        ix.substitute_conds(c.a_valid, at),
        ix.substitute_conds(c.b_valid, at),
        c.family,
    )
    assert isinstance(part, g.Contract)
    return part


def assert_same_values(a: g.Node, b: g.Node) -> None:
    graph = graph_of(a, b)
    inputs = {s.name: torch.randn(s.node.shape, dtype=torch.float64) for s in graph.inputs}
    one, other = interpret_graph(graph, inputs).outputs
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def is_known(c: g.Node) -> bool:
    inner = c.x if isinstance(c, g.View) else c
    assert isinstance(inner, g.Contract)
    return recognise(inner) is not None or roles(inner) is not None


@pytest.mark.parametrize("transposed", [False, True], ids=["forward", "transposed"])
def test_parts_of_convolutions(transposed: bool) -> None:
    draw, found = Random(0), 0
    torch.manual_seed(0)
    for _ in range(60):
        part = part_of(some_convolution(draw, transposed), draw)
        form = as_library_form(part)
        if form is not None:
            found += 1
            assert is_known(form)
            assert_same_values(part, form)
    assert found >= 20


def test_several_channel_axes_and_reversed_taps() -> None:
    """Sums of a transposed convolution over one spatial axis leave its taps as channels."""
    x = g.input_("x", (2, 3, 3, 7), FLOAT64, "input")
    w = g.input_("w", (3, 4, 3, 3), FLOAT64, "param")
    i, r = ix.axes((2, 4, 7)), g.reduced_axes((3, 3, 3))
    at = i[2] - r[2] + 1
    c = g.contract(
        x,
        w,
        (2, 4, 7),
        (3, 3, 3),
        (i[0], r[0], ix.const(2) - r[1], at),
        (r[0], i[1], r[1], r[2]),
        ix.inside(at, 7),
        family="convolution",
    )
    assert isinstance(c, g.Contract) and recognise(c) is None
    form = as_library_form(c)
    assert form is not None and is_known(form)
    assert_same_values(c, form)


def test_what_shares_an_axis_is_grouped() -> None:
    """A depthwise product: the channel is an axis of both operands and of the result."""
    x, w = g.input_("x", (2, 4, 9), FLOAT64, "input"), g.input_("w", (4, 3), FLOAT64, "param")
    i, (r,) = ix.axes((2, 4, 7)), g.reduced_axes((3,))
    c = g.contract(x, w, (2, 4, 7), (3,), (i[0], i[1], i[2] + r), (i[1], r), family="convolution")
    form = as_library_form(c) if isinstance(c, g.Contract) else None
    inner = form.x if isinstance(form, g.View) else form
    assert form is not None and isinstance(inner, g.Contract)
    assert (found := recognise(inner)) is not None and found.groups == 4
    assert_same_values(c, form)


@pytest.mark.parametrize("transposed", [False, True], ids=["forward", "transposed"])
def test_parts_of_grouped_convolutions(transposed: bool) -> None:
    x = g.input_("x", (2, 6, 11, 8), FLOAT64, "input")
    w = g.input_("w", (6, 2, 3, 2) if transposed else (4, 3, 3, 2), FLOAT64, "param")
    whole = (
        transposed_convolution(x, w, (2, 1), (1, 0), (1, 1), 2, (0, 0))
        if transposed
        else convolution(x, w, (1, 2), (1, 0), (1, 1), 2)
    )
    assert isinstance(whole, g.Contract)
    for first, count in ((0, 3), (4, 5)):
        shape = (*whole.shape[:2], count, whole.shape[3])
        i = ix.axes(shape)
        at = dict(zip(whole.axes, (*i[:2], i[2] + first, i[3]), strict=True))
        part = g.contract(
            x,
            w,
            shape,
            whole.reduced,
            tuple(ix.substitute(e, at) for e in whole.a_index),
            tuple(ix.substitute(e, at) for e in whole.b_index),
            ix.substitute_conds(whole.a_valid, at),
            (),
            "convolution",
        )
        assert isinstance(part, g.Contract) and recognise(part) is None
        form = as_library_form(part)
        assert form is not None and is_known(form)
        assert_same_values(part, form)


def test_products_with_strided_batches() -> None:
    a, b = g.input_("a", (6, 4, 5), FLOAT64, "input"), g.input_("b", (6, 5, 3), FLOAT64, "input")
    i, (r,) = ix.axes((3, 4, 3)), g.reduced_axes((5,))
    c = g.contract(a, b, (3, 4, 3), (5,), (i[0] * 2, i[1], r), (i[0] * 2 + 1, r, i[2]))
    assert isinstance(c, g.Contract) and roles(c) is None
    form = as_library_form(c)
    assert form is not None and is_known(form)
    assert_same_values(c, form)
