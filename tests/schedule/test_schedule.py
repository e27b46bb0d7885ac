"""The scheduler: the same values as the graph, in the number of kernels one would write by hand."""

import importlib

import pytest
import torch

from fusewright.context import Context
from fusewright.ir import body as b
from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir import offsets
from fusewright.ir.check import check_program
from fusewright.ir.convolution import convolution, transposed_convolution
from fusewright.ir.dtypes import FLOAT32
from fusewright.ir.kernel import Kernel, LibraryCall
from fusewright.run.interpret import interpret_graph, interpret_program
from fusewright.schedule import schedule
from fusewright.target.arch import arch
from schedule.graphs import (
    graph_of,
    linear,
    matmul,
    mean,
    normalised,
    random_graph,
    scalar,
    softmax,
    tensor,
)

TARGETS = ("cpu", "cuda:sm_90a", "cuda:sm_80", "cuda")


def programs(graph):
    for target in TARGETS:
        program = schedule(graph, Context(), arch(target))
        check_program(program)
        yield program


def assert_same_values(graph):
    torch.manual_seed(0)
    inputs = {s.name: torch.randn(s.node.shape) for s in graph.inputs}
    buffers = {s.name: inputs[s.name] for s in graph.inputs}
    expected = interpret_graph(graph, inputs).outputs
    for program in programs(graph):
        got = interpret_program(program, buffers).outputs
        for e, o in zip(expected, got, strict=True):
            torch.testing.assert_close(o, e, rtol=2e-4, atol=2e-5, equal_nan=True)


def kernels(program):
    return [s for s in program.steps if isinstance(s, Kernel)]


def calls(program):
    return [s for s in program.steps if isinstance(s, LibraryCall)]


x = tensor("x", 300, 100)
y = tensor("y", 300, 100)
w = tensor("w", 50, 100, role="param")
bias = tensor("bias", 50, role="param")
planes = tensor("planes", 40, 32, 6, 5)
gain = tensor("gain", 32, role="param")
residual = g.binary("add", x, y)
groups = g.reshape(planes, (40, 8, 120))

TWICE = g.scan("prod", g.scan("sum", x, 1, exclusive=True), 1)

ONE_KERNEL = {
    "pointwise chain": [g.unary("tanh", g.unary("exp", g.binary("mul", x, y)))],
    "softmax": [softmax(x)],
    "layer norm of a residual that is returned too": [residual, normalised(residual, (1,))],
    "sums of the same data": [g.reduce("sum", x, (1,)), g.reduce("max", x, (1,))],
    "reduction over a middle axis": [g.reduce("sum", tensor("z", 8, 40, 30), (1,))],
    "norm over a middle axis": [normalised(tensor("z", 8, 40, 30), (1,))],
    "norm over the first axis": [normalised(x, (0,))],
    "group norm with a gain per channel": [
        g.binary(
            "mul",
            g.reshape(normalised(groups, (2,)), planes.shape),
            g.expand(g.reshape(gain, (32, 1, 1)), planes.shape),
        )
    ],
    "matrix-vector product": [
        g.reduce("sum", g.binary("mul", x, g.expand(tensor("v", 100), x.shape)), (1,))
    ],
    "concatenation": [g.concat((x, g.unary("neg", y)), 0)],
    "concatenation of very many": [
        g.concat([tensor(f"part{k}", 1 + k % 2, 3) for k in range(240)], 0)
    ],
    "transposed copy": [g.permute(g.unary("exp", x), (1, 0))],
    "scan with what is before and after it": [
        g.binary("sub", g.scan("sum", g.binary("mul", x, y), 1), x)
    ],
    "running maximum and where it is": [
        g.scan("max", planes, 1, reverse=True),
        g.scan("argmax", planes, 1, reverse=True),
    ],
    "scan of a softmax, and its sum": [
        g.scan("sum", softmax(x), 1),
        g.reduce("sum", g.scan("sum", softmax(x), 1), (1,)),
    ],
    "scan of a scan, with its mean taken out": [
        g.binary("sub", TWICE, g.insert_expanded(mean(TWICE, (1,)), (1,), TWICE.shape))
    ],
    "argmax and its maximum": [g.arg_reduce("argmax", x, 1), g.reduce("max", x, (1,))],
}


@pytest.mark.parametrize("name", ONE_KERNEL)
def test_one_kernel(name):
    graph = graph_of(*ONE_KERNEL[name])
    for program in programs(graph):
        assert len(kernels(program)) == 1 and not calls(program), program.why_not
    assert_same_values(graph)


@pytest.mark.parametrize(
    "outputs",
    [
        [g.scan("sum", x, 1), g.scan("sum", x, 1, reverse=True)],
        [g.reduce("sum", g.reshape(g.scan("sum", x, 1), (300, 10, 10)), (2,))],
        [g.binary("add", g.scan("sum", x, 1), g.scan("sum", x, 0))],
    ],
    ids=["opposite directions", "columns of two axes", "two axes"],
)
def test_what_cannot_share_the_pass_of_a_scan(outputs):
    graph = graph_of(*outputs)
    for program in programs(graph):
        assert len(kernels(program)) >= 2 and program.why_not
    assert_same_values(graph)


def test_bias_of_a_stored_linear_goes_to_the_library():
    graph = graph_of(linear(x, w, bias))
    for program in programs(graph):
        assert not kernels(program)
        assert [c.function for c in calls(program)] == ["torch.addmm"]
    assert_same_values(graph)


def test_bias_and_activation_join_the_reduction_behind_a_product():
    graph = graph_of(g.reduce("sum", g.unary("sigmoid", linear(x, w, bias)), (1,)))
    for program in programs(graph):
        assert len(kernels(program)) == 1
        assert [c.function for c in calls(program)] == ["torch.mm"]
    assert_same_values(graph)


@pytest.mark.parametrize("alone", [True, False])
def test_sums_that_only_products_read_are_stored_as_they_are_read(alone):
    x, w = tensor("x", 32, 40), tensor("w", 48, 40)
    a, b, c = ix.axes((40, 12, 4))
    sums = g.reduce("sum", g.view(w, (40, 12, 4), (b * 4 + c, a)), (2,))
    r = g.reduced_axes((40,))
    i, j = ix.axes((32, 12))
    y = g.contract(x, sums, (32, 12), (40,), (i, *r), (*r, j))
    outputs = (g.unary("tanh", y),) if alone else (g.unary("tanh", y), g.unary("exp", sums))
    graph = graph_of(*outputs)
    assert_same_values(graph)
    for program in programs(graph):
        folding = next(k for k in kernels(program) if any(p.cols for p in k.phases))
        shapes = {program.buffer(s.buffer).shape for p in folding.phases for s in p.stores}
        assert ((12, 40) in shapes) is alone


def test_chained_products_pass_strided_views():
    graph = graph_of(matmul(g.permute(matmul(x, g.permute(w, (1, 0))), (1, 0)), x))
    for program in programs(graph):
        assert not kernels(program) and len(calls(program)) == 2
    assert_same_values(graph)


def test_a_wide_value_used_by_two_kernels_is_stored_once():
    wide = g.binary(
        "add", g.binary("add", x, y), g.binary("add", tensor("u", 300, 100), tensor("v", 300, 100))
    )
    graph = graph_of(
        g.reduce("sum", wide, (0,)),
        g.reduce("max", wide, (1,)),
        g.permute(g.unary("exp", wide), (1, 0)),
    )
    for program in programs(graph):
        loads = [k for k in kernels(program) if "u" in k.reads]
        assert len(loads) == 1
    assert_same_values(graph)


def test_few_long_rows_are_split_and_many_are_not():
    few = graph_of(g.reduce("sum", tensor("x", 2, 1 << 20), (1,)))
    many = graph_of(g.reduce("sum", tensor("x", 1 << 14, 512), (1,)))
    assert [len(kernels(p)) for p in programs(few)] == [2, 2, 2, 2]
    assert [len(kernels(p)) for p in programs(many)] == [1, 1, 1, 1]


def test_few_long_rows_of_an_argmax_are_split():
    data = g.input_("x", (2, 70_001), FLOAT32)
    graph = graph_of(g.arg_reduce("argmax", data, 1), g.arg_reduce("argmin", data, 1))
    values = torch.randint(-9, 9, (2, 70_001)).float()
    values[1, 60_000] = values[1, 69_999] = float("nan")
    for program in programs(graph):
        assert len(kernels(program)) >= 2
        highest, lowest = interpret_program(program, {"x": values}).outputs
        assert torch.equal(highest, values.argmax(1))
        assert torch.equal(lowest, values.argmin(1))


@pytest.mark.parametrize("ways", [(False, False), (True, False), (False, True), (True, True)])
def test_few_long_rows_of_a_scan_are_split(ways):
    wide, tall = tensor("x", 1, 1 << 17), tensor("y", 1 << 17, 2)
    for data, axis in ((wide, 1), (tall, 0)):
        small = g.binary("mul", data, scalar(0.01, data.shape))
        node = g.scan("sum", small, axis, reverse=ways[0], exclusive=ways[1])
        graph = graph_of(g.unary("tanh", node))
        for program in programs(graph):
            assert len(kernels(program)) == 3, program.why_not
        assert_same_values(graph)
    odd = g.scan("max", tensor("x", 3, 50_021), 1, reverse=ways[0], exclusive=ways[1])
    assert_same_values(graph_of(odd))
    assert len(kernels(next(programs(graph_of(g.scan("sum", tensor("x", 300, 4096), 1)))))) == 1


@pytest.mark.parametrize("reverse", [False, True])
def test_chunks_of_a_scan_know_positions_and_logarithms(reverse):
    data = g.input_("x", (2, 70_001), FLOAT32)
    nodes = [g.scan(k, data, 1, reverse=reverse) for k in ("argmax", "argmin", "logsumexp")]
    values = torch.randint(-9, 9, (2, 70_001)).float()
    values[0, :9000] = values[0, 60_000:] = float("-inf")
    values[1, 30_000] = values[1, 50_000] = float("nan")
    graph = graph_of(*nodes)
    expected = interpret_graph(graph, {"x": values}).outputs
    for program in programs(graph):
        assert len(kernels(program)) > 3
        got = interpret_program(program, {"x": values}).outputs
        for e, o in zip(expected, got, strict=True):
            torch.testing.assert_close(o, e, equal_nan=True)


def test_what_follows_a_whole_sum_is_in_its_last_kernel():
    graph = graph_of(g.unary("sqrt", g.reduce("sum", tensor("x", 300, 1000), (0, 1))))
    assert [len(kernels(p)) for p in programs(graph)] == [2, 2, 2, 2]


def test_a_whole_sum_of_normalised_rows_is_folded_with_their_statistics():
    rows = tensor("rows", 1024, 512)
    wide = g.binary("mul", softmax(rows), rows)
    graph = graph_of(g.reduce("sum", wide, (0, 1)))
    for program in programs(graph):
        readers = [k for k in kernels(program) if "rows" in k.reads]
        assert [k.row_count for k in readers] == [1024], program.why_not
    assert_same_values(graph)


def test_split_with_a_remainder_keeps_the_value():
    assert_same_values(
        graph_of(
            g.reduce("sum", tensor("x", 100_003), (0,)), g.reduce("max", tensor("x", 100_003), (0,))
        )
    )


def test_outputs_have_the_strides_of_eager():
    graph = graph_of(g.unary("exp", x), strides=((1, 300),))
    for program in programs(graph):
        assert program.returns[0].strides == (1, 300)
    assert_same_values(graph)


def test_a_returned_view_of_an_input_is_no_kernel():
    graph = graph_of(g.permute(x, (1, 0)), strides=((1, 100),))
    for program in programs(graph):
        assert not program.steps and program.returns[0].buffer == "x"


def test_empty_and_zero_dimensional_values():
    assert_same_values(graph_of(g.unary("exp", tensor("x", 0, 4)), scalar(2.0, ())))
    assert_same_values(graph_of(g.reduce("sum", tensor("x", 3, 0), (1,))))
    assert_same_values(graph_of(g.unary("exp", tensor("x"))))


def test_gather_reads_a_stored_table():
    table, where = tensor("table", 20, 8), g.input_("where", (5,), g.INT64)
    rows = g.expand(g.reshape(where, (5, 1)), (5, 8))
    node = g.gather(table, rows, axis=0, index=(g.ix.const(0), g.ix.axis(1, 8)))
    graph = graph_of(g.unary("exp", node))
    inputs = {"table": torch.randn(20, 8), "where": torch.tensor([3, 0, 19, 7, 7])}
    expected = inputs["table"][inputs["where"]].exp()
    for program in programs(graph):
        (out,) = interpret_program(program, inputs).outputs
        torch.testing.assert_close(out, expected)


def test_a_chain_of_thousands_is_cut():
    node = x
    for _ in range(2000):
        node = g.unary("sin", node)
    for program in programs(graph_of(node)):
        assert 2 <= len(kernels(program)) <= 20


@pytest.mark.parametrize("seed", range(150))
def test_random_programs_keep_their_values(seed):
    assert_same_values(random_graph(seed))


def test_copied_operand_of_a_call_comes_before_it():
    """A merged operand without a strided view is copied, although the graph has no such node."""
    a, b = tensor("a", 4, 6, 3, 3), tensor("b", 6, 60, 3, 3, role="param")
    (i, j), r = ix.axes((4, 60)), g.reduced_axes((6, 3, 3))
    product = g.contract(
        g.unary("tanh", a), b, (4, 60), (6, 3, 3), (i, *r), (r[0], j, *r[1:]), family="convolution"
    )
    graph = graph_of(g.unary("exp", product))
    for program in programs(graph):
        assert [c.function for c in calls(program)] == ["torch.mm"]
    assert_same_values(graph)


def test_rows_that_fit_no_block_are_kept_by_a_cluster():
    rows = tensor("rows", 132, 40_000)
    graph = graph_of(softmax(rows), normalised(rows, (1,)))
    program = schedule(graph, Context(), arch("cuda:sm_90a"))
    (kernel,) = kernels(program)
    assert kernel.anchor == "row_cluster" and kernel.tile.lanes > kernel.tile.threads
    loads = {e for p in kernel.phases for e in b.loads(*p.bodies)}
    assert len([p for p in kernel.phases if b.loads(*p.bodies)]) == len(loads) == 1
    assert_same_values(graph)


def test_long_rows_that_share_nothing_with_their_statistics_are_streamed_apart():
    rows = tensor("rows", 132, 2_000_000)
    program = schedule(graph_of(normalised(rows, (1,))), Context(), arch("cuda:sm_90a"))
    last = kernels(program)[-1]
    assert last.anchor == "elementwise" and last.row_count == rows.size
    assert any("share nothing" in w.reason for w in program.why_not)


def few_long_rows():
    return normalised(tensor("rows", 3, 1 << 20), (1,))


def batch_statistics():
    return normalised(tensor("images", 5, 8, 256, 256), (0, 2, 3))


@pytest.mark.parametrize("made", [few_long_rows, batch_statistics])
def test_mean_and_variance_of_long_rows_share_one_read(made):
    graph = graph_of(made())
    _, *on_gpus = programs(graph)  # a CPU's cache holds a row between its passes
    for program in on_gpus:
        large = [x.name for x in program.buffers if x.role == "input"]
        readers = [k for k in kernels(program) if set(large) & set(k.reads)]
        assert len(readers) == 2, program.why_not  # the statistics of chunks; the result
        assert len([p for p in readers[0].phases if p.folds]) == 2
    assert_same_values(graph)


def test_distances_from_another_centre_are_no_variance():
    x, centre = tensor("rows", 3, 1 << 20), tensor("centre", 3)
    away = g.binary("sub", x, g.insert_expanded(centre, (1,), x.shape))
    assert_same_values(graph_of(g.reduce("sum", g.binary("mul", away, away), (1,)),
                                g.reduce("sum", x, (1,))))


def test_rows_that_fit_no_cluster_are_read_again():
    graph = graph_of(softmax(tensor("rows", 132, 1 << 20)))
    (kernel,) = kernels(schedule(graph, Context(), arch("cuda:sm_90a")))
    assert kernel.anchor == "row_reduce" and not any(p.keeps for p in kernel.phases)


def test_rows_read_through_a_gather_count_in_the_choice_of_the_anchor():
    """A bag of embeddings: the rows of the table are contiguous along the result's rows."""
    table, where = tensor("table", 500, 64), g.input_("where", (16, 20), g.INT64)
    at = g.insert_expanded(where, (2,), (16, 20, 64))
    rows = g.gather(table, at, axis=0, index=(g.ix.const(0), g.ix.axis(2, 64)))
    for program in programs(graph_of(g.reduce("sum", rows, (1,)))):
        assert [k.anchor for k in kernels(program)] == ["column_reduce"]


def _convolved(channels: int = 8, groups: int = 1):
    image = tensor("image", 2, 8, 14, 13)
    filters = tensor("filters", channels, 8 // groups, 3, 3, role="param")
    return convolution(image, filters, (1, 1), (1, 1), (1, 1), groups)


def _depthwise(rank=2, stride=1, dilation=1, multiplier=1):
    extents = (1600,) if rank == 1 else (40,) * rank
    x, w = tensor("x", 2, 6, *extents), tensor("w", 6 * multiplier, 1, *(3,) * rank)
    many = [[v] * rank for v in (stride, 1, dilation)]
    return convolution(x, w, *many, 6)


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"dilation": 2}, {"multiplier": 2}])
def test_depthwise_convolutions_are_weighted_windows_of_a_gpu(rank, options):
    cpu, cuda, *_ = programs(graph_of(g.unary("tanh", _depthwise(rank, **options))))
    assert calls(cpu)
    assert not calls(cuda) and len(cuda.steps) == 1
    (kernel,) = kernels(cuda)
    assert kernel.anchor == "stencil" if rank > 1 else kernel.tile.lanes == 1


def test_convolutions_that_sum_over_channels_or_scatter_stay_with_the_library():
    x, w = tensor("x", 2, 6, 40, 40), tensor("w", 6, 1, 3, 3)
    scattered = transposed_convolution(x, w, (2, 2), (1, 1), (1, 1), 6, (0, 0))
    wide = convolution(x, tensor("w", 6, 1, 9, 9), (1, 1), (4, 4), (1, 1), 6)
    for y in (_convolved(groups=2), scattered, wide):
        assert all(calls(program) for program in programs(graph_of(y)))


def _layouts_of_calls(graph, target="cuda:sm_90a"):
    program = schedule(graph, Context(), arch(target))
    (call,) = calls(program)
    buffer = program.buffer(call.outs[0])
    anchors = [k.anchor for k in kernels(program)]
    return buffer.strides == offsets.channels_last(buffer.shape), anchors


def test_convolutions_keep_their_channels_inside_where_readers_turn_them_around():
    y = _convolved()
    pointwise = graph_of(g.unary("tanh", y))
    assert _layouts_of_calls(pointwise) == (True, ["transpose", "transpose"])
    folded = graph_of(g.reduce("max", g.unary("tanh", _convolved(64)), (1,)))
    assert _layouts_of_calls(folded) == (True, ["transpose", "row_reduce"])
    for graph in (pointwise, folded):
        assert_same_values(graph)


def test_convolutions_that_are_returned_or_normalised_keep_their_layout():
    y = _convolved()
    assert _layouts_of_calls(graph_of(y, g.unary("tanh", y)))[0] is False
    assert _layouts_of_calls(graph_of(normalised(y, (2, 3))))[0] is False
    assert _layouts_of_calls(graph_of(g.unary("tanh", _convolved(groups=2))))[0] is False


@pytest.mark.parametrize(
    ("stride", "extent", "inside"), [(2, 9, True), (1, 9, False), (2, 3, False)]
)
def test_strided_transposed_convolutions_keep_their_channels_inside_on_a_cpu(
    stride, extent, inside
):
    image = tensor("image", 1, 8, extent, extent)
    filters = tensor("filters", 8, 16, 4, 4, role="param")
    once, ones = (stride, stride), (1, 1)
    y = transposed_convolution(image, filters, once, ones, ones, 1, (0, 0))
    graph = graph_of(g.unary("tanh", y))
    assert _layouts_of_calls(graph, "cpu")[0] is inside
    assert _layouts_of_calls(graph_of(g.unary("tanh", _convolved())), "cpu")[0] is False
    assert_same_values(graph)


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("rows", [2, 4])
def test_few_rows_read_a_large_matrix_once(rows, across, monkeypatch):
    module = importlib.import_module("fusewright.schedule.prepare")
    monkeypatch.setattr(module, "LARGE_MATRIX", 64)
    a, b = tensor("a", rows, 40), tensor("b", *((40, 36) if across else (36, 40)), role="param")
    product = matmul(a, b if across else g.permute(b, (1, 0)))
    graph = graph_of(g.unary("tanh", product))
    program = schedule(graph, Context(), arch("cuda:sm_90a"))
    check_program(program)
    first, *rest = [s for s in program.steps if isinstance(s, Kernel)]
    assert sum(len(p.folds) for p in first.phases) == rows and "b" in first.reads
    assert not any("b" in k.reads for k in rest)
    inputs = {s.name: torch.randn(s.node.shape) for s in graph.inputs}
    (expected,) = interpret_graph(graph, inputs).outputs
    (got,) = interpret_program(program, inputs).outputs
    torch.testing.assert_close(got, expected)


def test_tiny_products_are_sums_on_a_cpu():
    x, w, v = tensor("x", 8, 16), tensor("w", 16, 32), tensor("v", 32, 4)
    graph = graph_of(matmul(g.unary("tanh", matmul(x, w)), v))
    assert not calls(schedule(graph, Context(), arch("cpu")))
    assert_same_values(graph)
    larger = graph_of(matmul(x, tensor("u", 16, 65)))
    assert len(calls(schedule(larger, Context(), arch("cpu")))) == 1
