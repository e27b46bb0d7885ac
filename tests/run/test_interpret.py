"""The interpreter of the graph level against eager torch, and its contracts."""

import pytest
import torch
from torch.nn import functional as F

from fusewright.errors import IRError
from fusewright.ir import dtypes as dt
from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir.scalar import OPS
from fusewright.run.interpret import interpret_graph, interpret_nodes


def value(node: g.Node, **inputs: torch.Tensor) -> torch.Tensor:
    return interpret_nodes([node], inputs)[0]


def x_of(shape: tuple[int, ...], dtype: dt.DType = dt.FLOAT32, name: str = "x") -> g.Node:
    return g.input_(name, shape, dtype)


@pytest.mark.parametrize(
    ("op", "dtype"), [(n, d) for n in sorted(OPS) for d in dt.ALL if d.kind in OPS[n].on], ids=str
)
def test_every_scalar_operation_has_a_meaning_on_every_kind_it_admits(op, dtype):
    entry = OPS[op]
    torch_type = getattr(torch, dtype.name)
    a, b = (torch.tensor([1, 2, 1]).to(torch_type), torch.tensor([1, 1, 2]).to(torch_type))
    nodes = [x_of((3,), dtype, name) for name in "ab"]
    node = g.unary(op, nodes[0]) if entry.arity == 1 else g.binary(op, *nodes)
    out = value(node, a=a, b=b)
    assert out.shape == (3,)
    assert out.dtype == getattr(torch, node.dtype.name)


def test_half_precision_is_computed_in_float32_and_rounded_once():
    x = torch.tensor([0.1, 3.0, -7.5], dtype=torch.float16)
    out = value(g.unary("lgamma", x_of((3,), dt.FLOAT16)), x=x)
    assert torch.equal(out, torch.lgamma(x.float()).half())


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.float32])
def test_division_rounds_as_python_does(dtype):
    a, b = torch.tensor([-7, 7, -7, 7], dtype=dtype), torch.tensor([2, -2, -2, 2], dtype=dtype)
    kind = dt.by_name(str(dtype).removeprefix("torch."))
    nodes = x_of((4,), kind, "a"), x_of((4,), kind, "b")
    floor, rest = interpret_nodes(
        [g.binary("floor_div", *nodes), g.binary("remainder", *nodes)], {"a": a, "b": b}
    )
    assert floor.tolist() == [-4, -4, 3, 3]
    assert rest.tolist() == [1, -1, -1, 1]


def test_views_follow_eager():
    x = torch.randn(3, 4, 5)
    node = x_of((3, 4, 5))
    i, j, k = ix.axes((3, 4, 5))
    assert torch.equal(value(g.permute(node, (2, 0, 1)), x=x), x.permute(2, 0, 1))
    assert torch.equal(value(g.reshape(node, (6, 10)), x=x), x.reshape(6, 10))
    flipped = g.view(node, (3, 4, 5), (i, 3 - j, k))
    assert torch.equal(value(flipped, x=x), x.flip(1))
    padded = g.view(
        node, (3, 7, 5), (i, ix.axis(1, 7) - 2, k), ix.inside(ix.axis(1, 7) - 2, 4), fill=-1.5
    )
    assert torch.equal(value(padded, x=x), F.pad(x, (0, 0, 2, 1), value=-1.5))
    assert value(g.expand(x_of((1, 4)), (2, 3, 4)), x=x[0, :1, :4]).shape == (2, 3, 4)


def test_a_view_out_of_bounds_raises():
    j = ix.axis(0, 7)
    node = g.view(x_of((4,)), (7,), (j - 2,), (ix.at_least(j, 1),))
    with pytest.raises(IRError, match="leaves its axis of extent 4"):
        value(node, x=torch.zeros(4))


def test_reductions_follow_eager():
    x = torch.randn(3, 4, 5)
    node = x_of((3, 4, 5))
    torch.testing.assert_close(value(g.reduce("sum", node, (0, 2)), x=x), x.sum((0, 2)))
    torch.testing.assert_close(value(g.reduce("prod", node, (1, 2)), x=x), x.prod(2).prod(1))
    assert torch.equal(value(g.reduce("max", node, (1,)), x=x), x.amax(1))
    assert torch.equal(value(g.arg_reduce("argmin", node, 2), x=x), x.argmin(2))
    positive = g.binary("gt", node, g.const(0, dt.FLOAT32, (3, 4, 5)))
    assert torch.equal(value(g.reduce("any", positive, (0, 1)), x=x), (x > 0).any(1).any(0))


def test_argmax_takes_the_first_nan_and_the_first_tie():
    x = torch.tensor([[1.0, float("nan"), 2.0, float("nan")], [3.0, 4.0, 4.0, 0.0]])
    assert value(g.arg_reduce("argmax", x_of((2, 4)), 1), x=x).tolist() == [1, 1]


def running(kind: str, x: torch.Tensor, axis: int, **ways: bool) -> torch.Tensor:
    node = g.scan(kind, x_of(tuple(x.shape), dt.by_name(str(x.dtype)[6:])), axis, **ways)
    return value(node, x=x)


def test_scans_follow_eager():
    x = torch.randn(3, 5)
    assert torch.equal(running("sum", x, 1), x.cumsum(1))
    assert torch.equal(running("prod", x, 0), x.cumprod(0))
    assert torch.equal(running("max", x, 1), x.cummax(1).values)
    assert torch.equal(running("argmin", x, 1), x.cummin(1).indices)
    assert torch.equal(running("logsumexp", x, 0), x.logcumsumexp(0))
    assert torch.equal(running("sum", x, 1, reverse=True), x.flip(1).cumsum(1).flip(1))
    after = running("sum", x, 1, reverse=True, exclusive=True)
    assert torch.equal(after[:, :-1], x.flip(1).cumsum(1).flip(1)[:, 1:])
    assert torch.equal(after[:, -1], torch.zeros(3))
    assert running("prod", x, 1, exclusive=True)[:, 0].tolist() == [1, 1, 1]


def test_running_positions_take_the_last_tie_and_the_last_nan():
    x = torch.tensor([1.0, 3.0, 3.0, float("nan"), 4.0, float("nan"), 0.0])
    assert running("argmax", x, 0).tolist() == [0, 1, 2, 3, 3, 5, 5]
    assert running("argmax", x, 0, reverse=True).tolist() == [3, 3, 3, 3, 5, 5, 6]


def test_scans_of_one_element_and_what_has_no_scan():
    x = x_of((3, 1))
    assert g.scan("sum", x, 1) == x
    assert value(g.scan("prod", x, 1, exclusive=True), x=torch.zeros(3, 1)).tolist() == [[1]] * 3
    for kind, ways in (("any", {}), ("argmax", {"exclusive": True})):
        with pytest.raises(IRError, match="scan"):
            g.scan(kind, x, 0, **ways)


def matmul(a: g.Node, b: g.Node) -> g.Node:
    (m, k), n = a.shape, b.shape[1]
    i, j = ix.axes((m, n))
    (r,) = g.reduced_axes((k,))
    return g.contract(a, b, (m, n), (k,), (i, r), (r, j))


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 4, 1), (3, 1, 5), (2, 0, 3), (0, 3, 2)])
def test_matmul(shape):
    m, k, n = shape
    a, b = torch.randn(m, k), torch.randn(k, n)
    node = matmul(x_of((m, k), name="a"), x_of((k, n), name="b"))
    torch.testing.assert_close(value(node, a=a, b=b), a @ b)


def test_matmul_of_integers_and_halves():
    a, b = torch.randint(-9, 9, (3, 4)), torch.randint(-9, 9, (4, 2))
    node = matmul(x_of((3, 4), dt.INT64, "a"), x_of((4, 2), dt.INT64, "b"))
    assert torch.equal(value(node, a=a, b=b), a @ b)
    node = matmul(x_of((3, 4), dt.BFLOAT16, "a"), x_of((4, 2), dt.BFLOAT16, "b"))
    out = value(node, a=a.bfloat16(), b=b.bfloat16())
    assert torch.equal(out, (a @ b).bfloat16())


def test_a_padded_grouped_strided_convolution():
    x, w = torch.randn(2, 4, 7), torch.randn(6, 2, 3)
    n, o, p = ix.axes((2, 6, 4))
    c, k = g.reduced_axes((2, 3))
    at = 2 * p + k - 1
    node = g.contract(
        x_of((2, 4, 7)),
        x_of((6, 2, 3), name="w"),
        (2, 6, 4),
        (2, 3),
        (n, (o // 3) * 2 + c, at),
        (o, c, k),
        a_valid=ix.inside(at, 7),
        family="convolution",
    )
    want = F.conv1d(x, w, stride=2, padding=1, groups=2)
    torch.testing.assert_close(value(node, x=x, w=w), want)


def test_gather_follows_eager_and_checks_its_indices():
    x, at = torch.randn(5, 3), torch.tensor([[4, 0, 2], [1, 1, 3]])
    node = g.gather(
        x_of((5, 3)), x_of((2, 3), dt.INT64, "at"), axis=0, index=(ix.const(0), ix.axis(1, 3))
    )
    assert torch.equal(value(node, x=x, at=at), x.gather(0, at))
    with pytest.raises(IndexError, match=r"outside \[0, 5\)"):
        value(node, x=x, at=at + 1)


def test_an_extern_call_runs_once_for_all_its_results():
    call = g.Call(
        "aten.sort.default",
        (x_of((4,)),),
        (),
        (((4,), dt.FLOAT32, (1,)), ((4,), dt.INT64, (1,))),
    )
    x = torch.randn(4)
    values, order = interpret_nodes([g.extern(call, 0), g.extern(call, 1)], {"x": x})
    assert torch.equal(values, x.sort()[0])
    assert torch.equal(order, x.sort()[1])


def test_float64_arithmetic_on_request():
    x = torch.rand(1000)
    node = g.reduce("sum", g.unary("exp", g.cast(x_of((1000,)), dt.FLOAT16)), (0,))
    (out,) = interpret_nodes([node], {"x": x}, as_float64=True)
    assert out.dtype == torch.float64
    torch.testing.assert_close(out, x.double().exp().sum(), rtol=1e-14, atol=0)


def test_mutations_and_outputs_of_a_graph():
    x = g.input_("x", (3,), dt.FLOAT32)
    assert isinstance(x, g.Input)
    graph = g.Graph(
        (g.InputSpec(x, (0,), (1,)),),
        (g.unary("exp", x),),
        ((1,),),
        g.Leaf(0),
        (g.Mutation("x", g.unary("neg", x)),),
    )
    value = torch.randn(3)
    result = interpret_graph(graph, {"x": value})
    assert torch.equal(result.outputs[0], value.exp())
    assert torch.equal(result.mutations["x"], -value)


def test_a_chain_of_ten_thousand_nodes():
    node = x_of(())
    one = g.const(1, dt.FLOAT32)
    for _ in range(10_000):
        node = g.binary("add", node, one)
    assert value(node, x=torch.zeros(())) == 10_000


def test_missing_and_different_inputs_are_named():
    with pytest.raises(IRError, match="no value was given for the input 'x'"):
        value(x_of((3,)))
    with pytest.raises(IRError, match=r"input 'x' is torch\.float32"):
        value(x_of((3,)), x=torch.zeros(4))
