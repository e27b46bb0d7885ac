"""Convolutions as contractions: what is recognised as one, and what only was one."""

from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir.convolution import Parameters, convolution, recognise, transposed_convolution
from fusewright.ir.dtypes import FLOAT32


def test_both_kinds_are_recognised_with_their_parameters() -> None:
    x, w = (
        g.input_("x", (2, 4, 9, 8), FLOAT32, "input"),
        g.input_("w", (6, 2, 3, 2), FLOAT32, "param"),
    )
    forward = convolution(x, w, (2, 1), (1, 0), (1, 2), 2)
    assert isinstance(forward, g.Contract)
    assert recognise(forward) == Parameters((2, 1), (1, 0), (1, 2), 2)
    v = g.input_("v", (4, 3, 3, 2), FLOAT32, "param")
    backward = transposed_convolution(x, v, (2, 2), (1, 0), (1, 1), 2, (1, 0))
    assert isinstance(backward, g.Contract)
    assert recognise(backward) == Parameters((2, 2), (1, 0), (1, 1), 2, True, (1, 0))


def test_a_sum_over_taps_without_space_is_no_convolution() -> None:
    """What rewriting leaves of a mean of a convolution: family and ranks of one, but no windows."""
    x, w = (
        g.input_("x", (4, 6, 3, 3), FLOAT32, "input"),
        g.input_("w", (5, 6, 3, 3), FLOAT32, "param"),
    )
    (i, j), r = ix.axes((4, 5)), g.reduced_axes((6, 3, 3))
    assert (
        recognise(g.contract(x, w, (4, 5), (6, 3, 3), (i, *r), (j, *r), family="convolution"))
        is None
    )


def test_one_tap_of_a_transposed_convolution_is_none() -> None:
    """What rewriting leaves of every second output: the taps along an axis are no sum any more."""
    x, w = (
        g.input_("x", (2, 3, 5, 5), FLOAT32, "input"),
        g.input_("w", (3, 4, 3, 3), FLOAT32, "param"),
    )
    (n, o, i, j), (c,) = ix.axes((2, 4, 5, 5)), g.reduced_axes((3,))
    one = (c, o, ix.const(1), ix.const(1))
    assert (
        recognise(g.contract(x, w, (2, 4, 5, 5), (3,), (n, c, i, j), one, (), (), "convolution"))
        is None
    )


def test_output_channels_that_no_number_of_groups_divides() -> None:
    """What rewriting leaves of a product of windows: 4 = 4/1 groups would share 6 channels."""
    x, w = (
        g.input_("x", (2, 4, 7), FLOAT32, "input"),
        g.input_("w", (6, 1, 3), FLOAT32, "param"),
    )
    (n, o, i), (_, t) = ix.axes((2, 6, 5)), g.reduced_axes((1, 3))
    y = g.contract(
        x,
        w,
        (2, 6, 5),
        (1, 3),
        (n, ix.div(o, 2), i + t),
        (o, ix.const(0), t),
        (),
        (),
        "convolution",
    )
    assert recognise(y) is None
