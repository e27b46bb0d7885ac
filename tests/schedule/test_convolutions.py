"""Convolutions as conv products: every form against torch in float64, and what surrounds them."""

from dataclasses import replace

import pytest
import torch

from fusewright.context import Context
from fusewright.emit.unit import translation_unit
from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir.body import loads
from fusewright.ir.check import check_program
from fusewright.ir.code import code, evaluate
from fusewright.ir.conv_tile import MOST_BOX, alternating, kernel_tile, run_of
from fusewright.ir.convolution import convolution, transposed_convolution
from fusewright.ir.kernel import Kernel, LibraryCall
from fusewright.options import Options
from fusewright.run.interpret import interpret_graph, interpret_program
from fusewright.schedule import schedule
from fusewright.target.arch import arch
from fusewright.target.products import H100_CONVS
from schedule.graphs import graph_of, mean, normalised, scalar, softmax, tensor
from schedule.products import logsumexp

HOPPER = arch("cuda:sm_90a")
# One that takes every convolution it can.
EAGER = replace(HOPPER, convs=replace(H100_CONVS, library_launch=1.0))
# Rounding both operands to eleven bits: 2 ** -11 / sqrt(3) each, uniformly distributed.
ROUNDED = 5e-4

# Spatial extents, channels, rows, taps, stride, padding, dilation.
DIRECT = {
    "plain": ((7, 9), 16, 20, (3, 3), 1, 1, 1),
    "few channels": ((9, 12), 3, 16, (3, 5), 2, 2, 1),
    "few channels, one column of taps": ((8, 5), 3, 16, (3, 1), 1, 0, 1),
    "few channels, three axes": ((4, 5, 6), 3, 10, (3, 2, 3), 1, 1, 1),
    "strided": ((13, 10), 16, 24, (3, 3), (2, 3), 1, 1),
    "dilated": ((12, 14), 24, 8, (3, 2), 1, (2, 0), (2, 3)),
    "one axis": ((37,), 20, 17, (4,), 3, 2, 2),
    "three axes": ((5, 6, 7), 17, 9, (2, 3, 3), 1, 1, 1),
    "pointwise": ((6, 7), 48, 33, (1, 1), 1, 0, 1),
    "one place": ((1, 1), 16, 8, (1, 1), 1, 0, 1),
}
# The same, with output padding.
TRANSPOSED = {
    "stride 1": ((9, 8), 20, 12, (3, 3), 1, 1, 1, 0),
    "stride 2": ((6, 7), 16, 10, (3, 3), 2, 1, 1, 1),
    "stride 3 of 2 taps": ((5, 4), 16, 7, (2, 2), 3, 0, 1, 0),
    "stride 2, dilation 3": ((5, 6), 18, 6, (3, 3), 2, 2, 3, 0),
    "stride 2, dilation 2": ((5, 6), 18, 6, (3, 3), 2, 2, 2, 1),
    "one axis": ((23,), 16, 9, (5,), 4, 3, 1, 2),
    "three axes": ((3, 4, 5), 16, 5, (3, 2, 3), 2, 1, 1, 1),
}




def _each(value, rank):
    return value if isinstance(value, tuple) else (value,) * rank


def _case(name, images=3):
    """The convolution as a node, and as torch computes it of (x, w)."""
    transposed = name in TRANSPOSED
    inner, channels, rows, taps, *steps = (TRANSPOSED if transposed else DIRECT)[name]
    rank = len(inner)
    stride, padding, dilation, *extra = (_each(s, rank) for s in steps)
    x = tensor("x", images, channels, *inner)
    if transposed:
        w = tensor("w", channels, rows, *taps, role="param")
        node = transposed_convolution(x, w, stride, padding, dilation, 1, extra[0])
        function = getattr(torch.nn.functional, f"conv_transpose{rank}d")
        given = {"output_padding": extra[0]}
    else:
        w = tensor("w", rows, channels, *taps, role="param")
        node = convolution(x, w, stride, padding, dilation, 1)
        function, given = getattr(torch.nn.functional, f"conv{rank}d"), {}
    given |= {"stride": stride, "padding": padding, "dilation": dilation}
    return node, lambda x, w: function(x, w, **given)


def _values(graph):
    torch.manual_seed(0)
    return {s.name: torch.randn(s.node.shape) for s in graph.inputs}


def _products(program):
    return [s for s in program.steps if isinstance(s, Kernel) and s.conv is not None]


# With the error of each: few channels are taken where nothing may be rounded, too.
FORMS = [(n, "match", ROUNDED) for n in (*DIRECT, *TRANSPOSED)]
FORMS += [(n, "ieee", 5e-7) for n in DIRECT if "few channels" in n]


@pytest.mark.parametrize(("name", "precision", "error"), FORMS)
def test_forms_against_torch_in_float64(name, precision, error):
    node, function = _case(name)
    graph = graph_of(node)
    program = check_program(schedule(graph, Context(Options(precision=precision)), EAGER))
    assert len(_products(program)) == 1
    assert not any(isinstance(s, LibraryCall) for s in program.steps)
    values = _values(graph)
    # Each image and each row has a magnitude of its own, which float16 could not hold.
    values["x"] *= 10.0 ** torch.arange(-9, 9, 6).view(-1, *(1,) * (values["x"].dim() - 1))
    (got,) = interpret_program(program, values).outputs
    want = function(values["x"].double(), values["w"].double())
    for mine, exact in zip(got.double(), want, strict=True):
        assert (mine - exact).norm() <= error * exact.norm()
    assert evaluate(code(program)) == program


@pytest.mark.parametrize("name", [*DIRECT, *TRANSPOSED])
def test_tiles_cover_the_outputs_within_the_skeletons_limits(name):
    node, _ = _case(name)
    program = schedule(graph_of(node), Context(), EAGER)
    (kernel,) = _products(program)
    conv, tile = kernel.conv, kernel_tile(kernel)
    assert conv is not None and tile.record == kernel.tile
    box = tile.box
    assert box.pitch >= box.width + (box.shared - 1) * conv.dilation[-1]
    run = run_of(conv, box)
    assert not box.width % run and (box.by_line or not box.pitch % run)
    assert max(box.pitch * conv.stride[-1], box.lines) <= MOST_BOX
    whole = box.width % 64 == 0 and box.width * box.lines == tile.columns
    assert whole or box.pitch * box.lines <= tile.columns
    assert tile.stages >= 2
    assert "conv90::run<Tile>" in translation_unit(program, HOPPER)


def test_what_follows_is_computed_with_it():
    node, function = _case("plain")
    bias = tensor("bias", 20, role="param")
    shifted = g.binary("add", node, g.insert_expanded(bias, (0, 2, 3), node.shape))
    out = g.unary("sigmoid", g.binary("mul", shifted, scalar(2.0, node.shape)))
    graph = graph_of(out, g.reduce("sum", out, (2, 3)))
    program = check_program(schedule(graph, Context(), EAGER))
    (kernel,) = _products(program)
    assert program.steps[-1] == kernel
    assert len(kernel.writes) == 2
    values = _values(graph)
    got, total = interpret_program(program, values).outputs
    want = torch.sigmoid(2 * (function(values["x"], values["w"]) + values["bias"].view(-1, 1, 1)))
    torch.testing.assert_close(got, want, rtol=1e-2, atol=5e-3)
    torch.testing.assert_close(total, want.sum((2, 3)), rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("name", TRANSPOSED)
def test_results_of_other_extents_than_the_phases_take_no_pass_of_their_own(name):
    """What lies beside the result in the product's last phases is not stored; a tensor of the
    result's extents is not read there."""
    node, function = _case(name, images=2)
    beside = tensor("beside", *node.shape)
    graph = graph_of(g.binary("mul", g.unary("tanh", node), beside))
    program = check_program(schedule(graph, Context(), EAGER))
    (kernel,) = _products(program)
    (store,) = kernel.phases[0].stores
    points = kernel.conv.images * kernel.conv.rows * kernel.conv.pixels
    beyond = points > node.size
    hosted = not beyond or alternating(kernel.conv) > 1
    assert (program.steps[-1] == kernel) == hosted
    assert bool(store.inside) == (beyond and hosted)
    assert "conv90::run<Tile>" in translation_unit(program, HOPPER)
    values = _values(graph)
    (got,) = interpret_program(program, values).outputs
    want = torch.tanh(function(values["x"], values["w"])) * values["beside"]
    torch.testing.assert_close(got, want, rtol=1e-2, atol=1e-2)
    assert evaluate(code(program)) == program


@pytest.mark.parametrize("name", [n for n in TRANSPOSED if n != "stride 1"])
def test_a_stored_product_lies_as_what_is_made_of_it(name):
    """Its phases lie between the places, so that readers of the result read lines of memory."""
    node, _ = _case(name, images=2)
    largest = g.reduce("max", node, (1,))
    program = check_program(schedule(graph_of(largest), Context(), EAGER))
    (kernel,) = _products(program)
    product = program.buffer(kernel.writes[0])
    assert product.shape == kernel.conv.shape
    rank = len(kernel.conv.outer)
    phases, places = product.strides[-2 * rank : -rank], product.strides[-rank:]
    assert places == tuple(p * s for p, s in zip(phases, kernel.conv.phases, strict=True))
    (reader,) = (s for s in program.steps if product.name in s.reads)
    (load,) = (x for x in loads(*reader.bodies) if x.buffer == product.name)
    assert ix.coefficient(load.offset, reader.rows[-1]) == 1


BEHIND = {
    "instance norm": lambda y: normalised(y, _places(y)),
    "batch norm": lambda y: normalised(y, (0, *_places(y))),
    "softmax over channels": lambda y: softmax(g.permute(y, (0, *_places(y), 1))),
    "logsumexp over channels": lambda y: logsumexp(y, 1),
    "global mean": lambda y: mean(y, _places(y)),
    "smallest over channels": lambda y: g.reduce("min", y, (1,)),
    "largest of all": lambda y: g.reduce("max", y, range(len(y.shape))),
}


def _places(y):
    return tuple(range(2, len(y.shape)))


@pytest.mark.parametrize("name", ["one axis", "stride 2"])
@pytest.mark.parametrize("behind", BEHIND)
def test_what_folds_its_result(name, behind):
    node, _ = _case(name, images=2)
    graph = graph_of(BEHIND[behind](node))
    program = check_program(schedule(graph, Context(), EAGER))
    assert len(_products(program)) == 1
    values = _values(graph)
    (got,), (want,) = (
        interpret_program(program, values).outputs,
        interpret_graph(graph, values).outputs,
    )
    torch.testing.assert_close(got, want, rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize(
    ("name", "precision"), [("plain", "match"), ("few channels", "match"), ("few channels", "ieee")]
)
def test_values_that_are_not_finite_stay_in_their_image(name, precision):
    node, function = _case(name)
    graph = graph_of(node)
    program = schedule(graph, Context(Options(precision=precision)), EAGER)
    assert _products(program)
    values = _values(graph)
    values["x"][0, 0, 0, 0], values["x"][1, 2, 3, 4] = float("nan"), float("inf")
    (got,) = interpret_program(program, values).outputs
    want = function(values["x"], values["w"])
    assert torch.equal(got.isnan(), want.isnan()) and torch.equal(got.isinf(), want.isinf())
    torch.testing.assert_close(got[2], want[2], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("precision", ["match", "ieee"])
def test_only_where_rounding_is_allowed(precision):
    node, _ = _case("plain")
    program = schedule(graph_of(node), Context(Options(precision=precision)), EAGER)
    assert bool(_products(program)) == (precision == "match")


def test_the_library_keeps_what_it_computes_faster():
    node, _ = _case("plain")
    program = schedule(graph_of(node), Context(), HOPPER)
    assert not _products(program)
