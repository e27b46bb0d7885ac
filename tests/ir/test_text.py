"""Index equations read as a person would write them; printed code rebuilds what was printed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusewright.ir import body as b
from fusewright.ir import dtypes as dt
from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir import offsets
from fusewright.ir.code import code, evaluate
from fusewright.ir.kernel import (
    Buffer,
    Fold,
    Kernel,
    LibraryCall,
    Phase,
    Prefix,
    Program,
    Store,
    Strided,
    Tile,
)
from fusewright.ir.program_text import program_text, strided_code
from fusewright.ir.text import equations, graph_text

F32 = dt.FLOAT32
X = g.input_("x", (128, 64), F32)
W = g.input_("weight", (32, 64), F32, "param")
B = g.input_("bias", (32,), F32, "param")


def graph(*outputs, inputs=(X, W, B), **more):
    specs = tuple(g.InputSpec(n, (k,), offsets.row_major(n.shape)) for k, n in enumerate(inputs))
    strides = tuple(offsets.row_major(o.shape) for o in outputs)
    result = g.Tree("tuple", ("",) * len(outputs), tuple(map(g.Leaf, range(len(outputs)))))
    return g.Graph(specs, outputs, strides, result, **more)


def linear(x, w, bias=None):
    shape, k = (x.shape[0], w.shape[0]), x.shape[1]
    i, j = ix.axes(shape)
    (r,) = g.reduced_axes((k,))
    out = g.contract(x, w, shape, (k,), (i, r), (j, r))
    return out if bias is None else g.binary("add", out, g.expand(bias, shape))


def scaled(x, factor):
    return g.binary("mul", x, g.const(factor, F32, x.shape))


def softmax(x):
    top = g.insert_expanded(g.reduce("max", x, [1]), [1], x.shape)
    power = g.unary("exp", g.binary("sub", x, top))
    total = g.insert_expanded(g.reduce("sum", power, [1]), [1], x.shape)
    return g.binary("div", power, total)


def padded(x):
    i, j = ix.axes((128, 66))
    return g.view(x, (128, 66), (i, j - 1), ix.inside(j - 1, 64))


LINEAR = linear(X, W, B)
SORT = g.Call(
    "aten.sort.default", (X, 1), (), (((128, 64), F32, (64, 1)), ((128, 64), dt.INT64, (64, 1)))
)


@pytest.mark.parametrize(
    ("node", "lines"),
    [
        (LINEAR, ["out[i, j] = sum(k) x[i, k] * weight[j, k] + bias[j]"]),
        (
            g.reduce("sum", g.unary("sigmoid", LINEAR), [1]),
            ["out[i] = sum(j) sigmoid(sum(k) x[i, k] * weight[j, k] + bias[j])"],
        ),
        (
            g.binary("add", scaled(g.unary("sigmoid", LINEAR), 2.0), LINEAR),
            [
                "add_1[i, j] = sum(k) x[i, k] * weight[j, k] + bias[j]",
                "out[i, j] = 2 * sigmoid(add_1[i, j]) + add_1[i, j]",
            ],
        ),
        (
            scaled(g.reduce("sum", g.binary("add", X, scaled(X, -0.5)), [1]), 1.5),
            ["out[i] = 1.5 * sum(j) (x[i, j] + -0.5 * x[i, j])"],
        ),
        (
            g.binary("div", g.reduce("sum", X, [1]), g.const(3, F32, (128,))),
            ["out[i] = (sum(j) x[i, j]) / 3"],
        ),
        (
            softmax(X),
            [
                "exp_1[i, j] = exp(x[i, j] - max(k) x[i, k])",
                "out[i, j] = exp_1[i, j] / (sum(k) exp_1[i, k])",
            ],
        ),
        (
            linear(g.unary("tanh", LINEAR), g.input_("w2", (5, 32), F32)),
            [
                "tanh_1[i, j] = tanh(sum(k) x[i, k] * weight[j, k] + bias[j])",
                "out[i, j] = sum(k) tanh_1[i, k] * w2[j, k]",
            ],
        ),
        (
            g.binary("sub", X, g.binary("sub", X, X)),
            ["out[i, j] = x[i, j] - (x[i, j] - x[i, j])"],
        ),
        (g.extern(SORT, 1), ["out = aten.sort(x, 1)[1]"]),
        (
            g.gather(
                g.unary("exp", X),
                g.input_("at", (7, 64), dt.INT64),
                axis=0,
                index=(ix.const(0), ix.axis(1, 64)),
            ),
            ["out[i, j] = exp(x[at[i, j], j])"],
        ),
        (g.concat([X, X], 1), ["out[i, j] = x[i, j] if j <= 63 else x[i, j - 64]"]),
        (scaled(g.scan("sum", X, 1), 2.0), ["out[i, j] = 2 * sum(k <= j) x[i, k]"]),
        (
            g.scan("max", scaled(X, 3.0), 0, reverse=True, exclusive=True),
            ["out[i, j] = max(k > i) 3 * x[k, j]"],
        ),
        (X, ["out[i, j] = x[i, j]"]),
    ],
)
def test_equations(node, lines):
    assert [e.text for e in equations(graph(node))] == lines


def test_padding_is_a_condition():
    (line,) = (e.text for e in equations(graph(padded(X))))
    assert line.startswith("out[i, j] = x[i, j - 1] if ")
    assert line.endswith(" else 0")
    assert "j >= 1" in line
    assert "j <= 64" in line


def test_modules_name_their_values_and_lines_are_cited():
    origin = g.Origin("net.first", 12, "y = self.first(x)")
    out = g.binary("mul", LINEAR, g.unary("exp", LINEAR))
    text = graph_text(graph(out, origins={LINEAR: origin}))
    assert "first[i, j] = sum(k)" in text
    assert "# float32[128, 32]  line 12" in text
    assert "weight: float32[32, 64]  param" in text


def test_several_outputs_and_mutations():
    root = g.unary("exp", X)
    lines = [
        e.text
        for e in equations(graph(root, root, LINEAR, mutations=(g.Mutation("x", scaled(X, 0)),)))
    ]
    assert lines == [
        "out0[i, j] = exp(x[i, j])",
        "out2[i, j] = sum(k) x[i, k] * weight[j, k] + bias[j]",
        "new x[i, j] = 0 * x[i, j]",
        "out1[i, j] = out0[i, j]",
    ]


def test_deep_graphs_print_in_pieces_of_bounded_length():
    node = X
    for _ in range(3000):
        node = g.unary("tanh", node)
    assert max(len(e.text) for e in equations(graph(node))) < 120


GRAPHS = [
    graph(softmax(LINEAR), padded(X)),
    graph(g.scan("argmin", X, 1), g.scan("sum", X, 0, reverse=True, exclusive=True)),
    graph(g.extern(SORT, 0), g.extern(SORT, 1), aliases=((0, "x"),)),
    graph(
        g.cast(
            g.where(g.binary("lt", X, scaled(X, 2)), X, g.const(float("-inf"), F32, X.shape)),
            dt.BFLOAT16,
        ),
        mutations=(g.Mutation("x", g.unary("neg", X)),),
        origins={X: g.Origin("m", 3, "x = 'y'")},
    ),
]


@pytest.mark.parametrize("value", GRAPHS)
def test_graph_code_rebuilds_the_graph(value):
    again = evaluate(code(value))
    assert again == value
    assert [n.key for n in again.nodes()] == [n.key for n in value.nodes()]
    assert code(again) == code(value)


def test_code_of_a_deep_graph():
    node = X
    for _ in range(3000):
        node = g.binary("add", node, node)
    assert evaluate(code(node)) == node


ROW, COL = ix.Var("i", 4), ix.Var("j", 6)
AT = ROW * 6 + COL


def program():
    x = b.Load(F32, "x", AT)
    y = b.guarded((ix.at_least(COL, 1),), b.Load(F32, "x", AT - 1), b.Lit(F32, float("nan")))
    shared = b.Apply(F32, "exp", (y,))
    out = b.Apply(F32, "mul", (b.Apply(F32, "mul", (shared, shared)), b.Ref(F32, "s")))
    kernel = Kernel(
        "scale",
        "row_reduce",
        (ROW,),
        (
            Phase((COL,), (Fold("s", "sum", F32, x),)),
            Phase((COL,), stores=(Store("y", AT, out),)),
        ),
        ("x",),
        ("y",),
        Tile(threads=128),
        ("exp",),
    )
    call = LibraryCall(
        "mm", "torch.mm", (Strided("y", (6, 4), (1, 6)), Strided("y", (4, 6), (6, 1))), (), ("z",)
    )
    buffers = (
        Buffer("x", (4, 6), F32, (6, 1), "input"),
        Buffer("y", (4, 6), F32, (6, 1), "temp"),
        Buffer("z", (6, 6), F32, (6, 1), "output"),
    )
    return Program(buffers, (kernel, call), (Strided("z", (6, 6), (6, 1)),))


def test_program_text():
    assert program_text(program()).splitlines() == [
        "x: float32[4, 6]  input",
        "y: float32[4, 6]  temp",
        "z: float32[6, 6]  output",
        "",
        "kernel scale(x, y)  row_reduce  threads=128 vector=1 items=1 lanes=1",
        "  covers exp",
        "  for i < 4:",
        "    for j < 6:",
        "      s += x[i, j]",
        "    for j < 6:",
        "      v0 = exp(x@(6*i + j - 1) if j >= 1 else nan)",
        "      y[i, j] = (v0 * v0) * s",
        "",
        "z = torch.mm(y.t(), y)",
        "",
        "return z",
    ]


def scan_program():
    x = b.Load(F32, "x", AT)
    scans = (
        Prefix("s", "sum", F32, x, reverse=True, exclusive=True),
        Prefix("at", "argmax", F32, b.Ref(F32, "s"), reverse=True, position=COL),
    )
    stores = (Store("y", AT, b.Ref(F32, "s")), Store("z", AT, b.Ref(dt.INT64, "at")))
    phase = Phase((COL,), stores=stores, scans=scans)
    kernel = Kernel("scan", "row_reduce", (ROW,), (phase,), ("x",), ("y", "z"), Tile())
    buffers = (
        Buffer("x", (4, 6), F32, (6, 1), "input"),
        Buffer("y", (4, 6), F32, (6, 1), "output"),
        Buffer("z", (4, 6), dt.INT64, (6, 1), "output"),
    )
    return Program(buffers, (kernel,), (Strided("y", (4, 6), (6, 1)),))


def test_scans_as_text():
    assert program_text(scan_program()).splitlines()[5:10] == [
        "  for i < 4:",
        "    for j < 6:",
        "      s = reverse exclusive cumsum of x[i, j]",
        "      at = reverse cumargmax at j of s",
        "      y[i, j] = s",
    ]


@pytest.mark.parametrize("value", [program(), scan_program()])
def test_program_code_rebuilds_the_program(value):
    assert repr(evaluate(code(value))) == repr(value)


@pytest.mark.parametrize(
    ("view", "text"),
    [
        (Strided("x", (4, 6), (6, 1)), "x"),
        (Strided("x", (6, 4), (1, 6)), "x.t()"),
        (Strided("x", (2, 12), (12, 1)), "x.view(2, 12)"),
        (Strided("x", (3,), (2,), 1), "x.as_strided((3,), (2,), x.storage_offset() + 1)"),
    ],
)
def test_strided_code(view, text):
    assert strided_code(view, Buffer("x", (4, 6), F32, (6, 1), "input")) == text


indices = st.recursive(
    st.sampled_from([ROW, COL]) | st.integers(-4, 4).map(ix.const),
    lambda c: (
        st.tuples(c, c).map(lambda p: p[0] * 3 + p[1])
        | c.map(lambda x: x // 4)
        | c.map(lambda x: x % 3)
        | st.tuples(c, c).map(lambda p: ix.maximum(*p))
    ),
    max_leaves=8,
)


@given(indices)
def test_code_of_index_expressions(x):
    assert evaluate(code(x)) == x
