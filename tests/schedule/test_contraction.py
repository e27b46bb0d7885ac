"""Products with their epilogue inside: the same values, and a reason where the library stays."""

import pytest
import torch

from fusewright.context import Context
from fusewright.emit.unit import translation_unit
from fusewright.ir import graph as g
from fusewright.ir.body import Dot, Load, walk
from fusewright.ir.check import check_program
from fusewright.ir.convolution import convolution
from fusewright.ir.dtypes import BFLOAT16, FLOAT16, FLOAT32
from fusewright.ir.kernel import Kernel, LibraryCall
from fusewright.options import Options
from fusewright.run.interpret import interpret_graph, interpret_program
from fusewright.run.scalars import torch_dtype
from fusewright.schedule import contraction, schedule
from fusewright.target.arch import arch
from schedule.graphs import graph_of, matmul, normalised, scalar, tensor
from schedule.products import HOSTED, KEPT_APART, PROLOGUES, STATISTICS, hidden, logsumexp

SM90 = arch("cuda:sm_90a")


@pytest.fixture
def always(monkeypatch):
    """The skeleton wins whatever the shape."""
    monkeypatch.setattr(contraction, "refusal", lambda *product: None)


def check_values(graph, program):
    check_program(program)
    torch.manual_seed(0)
    inputs = {
        s.name: (torch.randn(s.node.shape) * 2).to(torch_dtype(s.node.dtype)) for s in graph.inputs
    }
    expected = interpret_graph(graph, inputs).outputs
    for e, o in zip(expected, interpret_program(program, inputs).outputs, strict=True):
        torch.testing.assert_close(o, e, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", HOSTED)
def test_the_epilogue_moves_into_the_product(name, always):
    graph = graph_of(*HOSTED[name])
    program = schedule(graph, Context(), SM90)
    assert [s.anchor for s in program.steps if isinstance(s, Kernel)] == ["contraction"]
    assert not any(isinstance(s, LibraryCall) for s in program.steps)
    check_values(graph, program)
    text = translation_unit(program, SM90)
    assert "gemm90::run_major" in text and "_hole" in text


@pytest.mark.parametrize(("depth", "small"), [(64, True), (128, True), (192, False)])
def test_only_small_depths_bring_their_kernel(depth, small, always):
    graph = graph_of(g.unary("sigmoid", matmul(tensor("x", 24, depth), tensor("w", depth, 16))))
    program = schedule(graph, Context(), SM90)
    text = translation_unit(program, SM90)
    assert "gemm90::run_major" in text
    assert ("short_kernel" in text) == ("kRun" in text) == small


def test_a_product_of_what_follows_another_is_a_kernel_of_its_own(always, monkeypatch):
    monkeypatch.setattr(contraction, "pass_seconds", lambda *prologue: 1.0)
    hidden = g.unary("tanh", matmul(tensor("x", 9, 24), tensor("w", 24, 24, role="param")))
    graph = graph_of(g.unary("sigmoid", matmul(hidden, tensor("v", 24, 16, role="param"))))
    program = schedule(graph, Context(), SM90)
    assert [s.anchor for s in program.steps if isinstance(s, Kernel)] == ["contraction"] * 2
    check_values(graph, program)
    assert translation_unit(program, SM90).count("gemm90::run_major<") == 2


@pytest.mark.parametrize("name", STATISTICS)
def test_statistics_are_folds_and_one_pass_over_the_stored_product_is_left(name, always):
    graph = graph_of(*STATISTICS[name])
    program = schedule(graph, Context(), SM90)
    kernels = [s for s in program.steps if isinstance(s, Kernel)]
    assert [k.anchor for k in kernels] == ["contraction", "elementwise"]
    assert any(f.folds for f in kernels[0].phases)
    check_values(graph, program)


@pytest.mark.parametrize("name", KEPT_APART)
def test_a_reader_that_does_not_fit_reads_the_stored_product(name, always):
    graph = graph_of(*KEPT_APART[name])
    program = schedule(graph, Context(), SM90)
    anchors = [s.anchor for s in program.steps if isinstance(s, Kernel)]
    assert anchors.count("contraction") == 1
    check_values(graph, program)


def test_a_row_fold_of_few_rows_is_not_split_in_front_of_the_product():
    a, b = tensor("a", 64, 32768), tensor("b", 32768, 32768, role="param")
    program = schedule(
        graph_of(logsumexp(matmul(a, g.permute(b, (1, 0))), 1)), Context(), SM90
    )
    (kernel,) = program.steps
    assert isinstance(kernel, Kernel) and kernel.anchor == "contraction"


def test_a_sum_of_all_elements_goes_over_the_rows_first():
    a, b = tensor("a", 4096, 1024), tensor("b", 4096, 1024, role="param")
    squares = g.unary("tanh", matmul(a, g.permute(b, (1, 0))))
    program = schedule(graph_of(g.reduce("sum", squares, (0, 1))), Context(), SM90)
    assert [s.anchor for s in program.steps] == ["contraction", "row_reduce"]


def test_an_operand_computed_between_product_and_reader_comes_first(always):
    """The residual depends on a second product; the first one's kernel must wait for it."""
    y, v = tensor("y", 6, 10), tensor("v", 7, 10, role="param")
    other = g.reduce("sum", matmul(y, g.permute(v, (1, 0))), (0,))
    graph = graph_of(g.binary("mul", hidden, g.expand(other, (6, 7))))
    check_values(graph, schedule(graph, Context(), SM90))


def test_small_products_stay_with_the_library_and_say_why():
    program = schedule(graph_of(hidden), Context(), SM90)
    assert [type(s) for s in program.steps] == [LibraryCall]
    assert any("tensor cores" in w.what and "us" in w.reason for w in program.why_not)


def test_the_cpu_keeps_the_library(always):
    product = matmul(tensor("x", 9, 24), tensor("w", 24, 64, role="param"))
    program = schedule(graph_of(product), Context(), arch("cpu"))
    assert [type(s) for s in program.steps] == [LibraryCall]


@pytest.mark.parametrize(
    ("target", "precision", "scheme"),
    [
        ("cuda", "match", "fma"),
        ("cuda:sm_80", "ieee", "fma"),
        ("cuda:sm_90a", "ieee", "fma"),
        ("cuda:sm_80", "match", "six"),
        ("cuda:sm_80", "tf32", "tf32"),
        ("cuda:sm_80", "bf16", "bf16"),
    ],
)
@pytest.mark.parametrize("name", HOSTED)
def test_schemes_of_other_targets_and_precisions(target, precision, scheme, name, always):
    graph = graph_of(*HOSTED[name])
    program = schedule(graph, Context(Options(precision=precision)), arch(target))
    (kernel,) = program.steps
    assert isinstance(kernel, Kernel) and kernel.scheme == scheme
    check_values(graph, program)
    text = translation_unit(program, arch(target))
    space = "fma32" if scheme == "fma" else "mma80"
    assert f"{space}::run<" in text and "sm90" not in text


def test_multiply_adds_pay_where_passes_over_the_result_are_saved():
    def steps(depth, *, reads=True):
        a, b = tensor("a", 4096, depth), tensor("b", 4096, depth, role="param")
        y = matmul(a, g.permute(b, (1, 0)))
        graph = graph_of(g.unary("tanh", y) if reads else y)
        return schedule(graph, Context(Options(precision="ieee")), SM90)

    assert isinstance(steps(64).steps[0], Kernel)
    assert isinstance(steps(64, reads=False).steps[0], LibraryCall)
    kept = steps(8192)
    assert isinstance(kept.steps[0], LibraryCall)
    assert any("multiply-adds" in w.what and "us" in w.reason for w in kept.why_not)


@pytest.mark.parametrize(
    ("dtype", "depth", "scheme"),
    [(FLOAT32, 4096, "six"), (BFLOAT16, 256, "native"), (FLOAT16, 256, "native")],
)
def test_tensor_cores_before_hopper(dtype, depth, scheme):
    graph = graph_of(narrow(dtype, 4096, 4096, depth))
    (kernel,) = schedule(graph, Context(), arch("cuda:sm_80")).steps
    assert isinstance(kernel, Kernel) and kernel.scheme == scheme


@pytest.mark.parametrize("shape", [(1024, 8192, 8192), (128, 32768, 32768), (4096, 4096, 4096)])
def test_large_products_are_taken_from_the_library(shape):
    m, n, k = shape
    a, b = tensor("a", m, k), tensor("b", n, k, role="param")
    program = schedule(graph_of(matmul(a, g.permute(b, (1, 0)))), Context(), SM90)
    assert [s.anchor for s in program.steps if isinstance(s, Kernel)] == ["contraction"]
    (instead,) = [w for w in program.why_not if w.what.startswith("library call")]
    assert "split product" in instead.reason and instead.reason.count(" us") == 2


def narrow(dtype, m, n, k):
    """gelu(x w^T + bias) as PyTorch computes it in a 16-bit type: rounded after every op."""
    a, b = g.input_("a", (m, k), dtype), g.input_("b", (n, k), dtype, "param")
    bias = g.input_("bias", (n,), dtype, "param")

    def wide(x):
        return g.cast(x, FLOAT32)

    hidden = g.binary("add", wide(matmul(a, g.permute(b, (1, 0)))), wide(g.expand(bias, (m, n))))
    return g.cast(g.unary("tanh", wide(g.cast(hidden, dtype))), dtype)


@pytest.mark.parametrize("dtype", [BFLOAT16, FLOAT16])
def test_16_bit_products_take_what_follows(dtype, always):
    graph = graph_of(narrow(dtype, 6, 24, 16))
    program = schedule(graph, Context(), SM90)
    (kernel,) = program.steps
    assert isinstance(kernel, Kernel) and kernel.scheme == "native"
    check_program(program)
    torch.manual_seed(0)
    kind = torch_dtype(dtype)
    inputs = {s.name: torch.randn(s.node.shape).to(kind) for s in graph.inputs}
    expected = interpret_graph(graph, inputs).outputs
    for e, o in zip(expected, interpret_program(program, inputs).outputs, strict=True):
        torch.testing.assert_close(o, e, rtol=2e-2, atol=1e-2)
    text = translation_unit(program, SM90)
    assert "native90::run<" in text and "gemm90::" not in text


@pytest.mark.parametrize(("size", "taken"), [(4096, True), (8192, True), (512, False)])
def test_16_bit_products_are_taken_where_what_follows_is_worth_it(size, taken):
    program = schedule(graph_of(narrow(BFLOAT16, size, size, size)), Context(), SM90)
    assert isinstance(program.steps[0], Kernel) == taken
    assert taken or any("tensor cores" in w.what for w in program.why_not)


def test_a_16_bit_product_alone_stays_with_the_library():
    a, b = g.input_("a", (4096, 4096), BFLOAT16), g.input_("b", (4096, 4096), BFLOAT16, "param")
    program = schedule(graph_of(matmul(a, b)), Context(), SM90)
    assert [type(s) for s in program.steps] == [LibraryCall]
    assert any("nothing that follows" in w.reason for w in program.why_not)


@pytest.mark.parametrize(
    ("shape", "precision", "scheme"),
    [
        ((4096, 4096, 4096), "tf32", "tf32"),
        ((4096, 4096, 4096), "bf16", "bf16"),
        ((4096, 4096, 4096), "match", "split"),
        ((128, 32768, 32768), "tf32", "split"),  # weights of gigabytes: converting costs more
    ],
)
def test_precision_chooses_the_scheme_that_is_modelled_faster(shape, precision, scheme):
    m, n, k = shape
    a, b = tensor("a", m, k), tensor("b", n, k, role="param")
    graph = graph_of(matmul(a, g.permute(b, (1, 0))))
    (kernel,) = schedule(graph, Context(Options(precision=precision)), SM90).steps
    assert isinstance(kernel, Kernel) and kernel.scheme == scheme


def test_groups_with_a_unit_axis_are_reduced_at_once():
    """Group normalisation of a matrix folds (features per group, 1)."""
    a, b = tensor("a", 1024, 8192), tensor("b", 8192, 8192, role="param")
    groups = g.reshape(matmul(a, b), (1024, 16, 512, 1))
    program = schedule(graph_of(g.reduce("sum", groups, (2, 3))), Context(), SM90)
    check_program(program)
    kernels = [s for s in program.steps if isinstance(s, Kernel)]
    assert [k.anchor for k in kernels] == ["contraction", "row_reduce"]


def test_reductions_behind_a_convolution_stay_whole():
    """No product gathers them: the library computes a convolution that may not be rounded."""
    image, filters = tensor("image", 64, 64, 64, 64), tensor("w", 128, 64, 3, 3, role="param")
    y = convolution(image, filters, (1, 1), (0, 0), (1, 1), 1)
    program = schedule(graph_of(normalised(y, (2, 3))), Context(Options(precision="ieee")), SM90)
    assert [s.anchor for s in program.steps if isinstance(s, Kernel)] == ["row_reduce"]


@pytest.mark.parametrize("name", PROLOGUES)
def test_pointwise_producers_of_operands_move_into_the_product(name, always, monkeypatch):
    """Where they can be computed: a streamed operand has one value of each element's own."""
    monkeypatch.setattr(contraction, "pass_seconds", lambda *prologue: 1.0)
    output, inside = PROLOGUES[name]
    graph = graph_of(output)
    program = schedule(graph, Context(), SM90)
    check_program(program)
    check_values(graph, program)
    kernels = [s for s in program.steps if isinstance(s, Kernel)]
    (dot,) = [e for p in kernels[-1].phases for e in walk(*p.bodies) if isinstance(e, Dot)]
    assert sum(not isinstance(x, Load) for x in (dot.x, dot.y)) == inside
    text = translation_unit(program, SM90).partition("// ---- device code")[2]
    assert text.count("float stream(int") + text.count("float planes(int") == inside
    assert inside == 0 or len(kernels) == 1


@pytest.mark.parametrize(
    ("op", "shape", "inside"),
    [
        ("relu", (4096, 4096, 4096), True),
        ("erf", (1024, 8192, 8192), True),  # the smaller operand: computed twice an element
        ("erf", (65536, 1024, 1024), False),  # the streamed one: eight tiles would compute it
    ],
)
def test_cost_decides_where_a_producer_runs(op, shape, inside):
    m, n, k = shape
    a, b = tensor("a", m, k), tensor("b", n, k, role="param")
    value = g.binary("maximum", a, scalar(0.0, a.shape)) if op == "relu" else g.unary(op, a)
    program = schedule(graph_of(matmul(value, g.permute(b, (1, 0)))), Context(), SM90)
    assert (len(program.steps) == 1) == inside
    told = [w for w in program.why_not if "in the product" in f"{w.what} {w.reason}"]
    assert told and told[0].what.startswith("a pass of its own") == inside


@pytest.mark.parametrize(
    ("shape", "slices"),
    [((128, 4096, 4096), 4), ((256, 256, 65536), 32), ((4096, 4096, 4096), 1)],
)
def test_small_grids_divide_the_depth(shape, slices):
    m, n, k = shape
    a, b = tensor("a", m, k), tensor("b", n, k, role="param")
    program = schedule(graph_of(matmul(a, g.permute(b, (1, 0)))), Context(), SM90)
    (kernel,) = program.steps
    assert isinstance(kernel, Kernel) and kernel.tile.lanes == slices
    text = translation_unit(program, SM90)
    assert f"kSlices = {slices};" in text
