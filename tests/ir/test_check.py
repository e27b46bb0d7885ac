"""The checkers accept well-formed IR and name what is wrong with any other."""

from dataclasses import replace

import pytest

from fusewright.errors import IRError
from fusewright.ir import body as b
from fusewright.ir import dtypes as dt
from fusewright.ir import graph as g
from fusewright.ir import index as ix
from fusewright.ir import offsets
from fusewright.ir.check import check_graph, check_program
from fusewright.ir.kernel import (
    Buffer,
    Fold,
    Keep,
    Kernel,
    LibraryCall,
    Phase,
    Prefix,
    Program,
    Store,
    Strided,
    Tile,
)

F32 = dt.FLOAT32


def spec(node):
    return g.InputSpec(node, (0,), offsets.row_major(node.shape))


X = g.input_("x", (4, 6), F32)
Y = g.input_("y", (4, 6), F32)
GRAPH = g.Graph((spec(X), spec(Y)), (g.binary("add", X, Y),), ((6, 1),), g.Leaf(0))


def test_a_graph_that_keeps_the_rules_comes_back():
    assert check_graph(GRAPH) is GRAPH


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": (spec(X), spec(X))}, "input names not unique: x"),
        ({"inputs": (spec(X),)}, "input y: not declared"),
        ({"output_strides": ()}, "one tuple of strides"),
        ({"output_strides": ((1,),)}, "output 0: strides"),
        ({"result": g.Leaf(1)}, r"the result holds outputs \[1\] of 1"),
        ({"aliases": ((0, "z"),)}, "alias of output 0"),
        ({"mutations": (g.Mutation("z", X),)}, "mutation of z, which is no input"),
        ({"mutations": (g.Mutation("x", g.cast(X, dt.FLOAT64)),)}, "another shape or dtype"),
        ({"outputs": (g.Unary((4, 7), F32, "exp", X),)}, "exp says"),
    ],
)
def test_a_broken_graph_is_named(changes, message):
    with pytest.raises(IRError, match=message):
        check_graph(replace(GRAPH, **changes))


def view(shift, valid):
    i, j = ix.axes((4, 6))
    return g.view(X, (4, 6), (i, j + shift), valid)


def test_views_and_contractions_are_checked_under_their_conditions():
    _, j = ix.axes((4, 6))
    fine = view(-2, ix.inside(j - 2, 6))
    check_graph(replace(GRAPH, outputs=(g.binary("add", fine, Y),)))
    wrong = view(-2, ix.inside(j - 1, 6))
    with pytest.raises(IRError, match="leaves its axis of extent 6 at"):
        check_graph(replace(GRAPH, outputs=(g.binary("add", wrong, Y),)))
    i, j = ix.axes((4, 4))
    (r,) = g.reduced_axes((7,))
    product = g.contract(X, Y, (4, 4), (7,), (i, r), (j, r), ix.inside(r, 6), (ix.less(j, 3),))
    with pytest.raises(IRError, match="contract: index r0 leaves"):
        check_graph(replace(GRAPH, outputs=(product,), output_strides=((4, 1),)))


# ---------------------------------------------------------------------------------------- programs

ROW, COL = ix.Var("i", 4), ix.Var("j", 6)
AT = ROW * 6 + COL
LOAD = b.Load(F32, "x", AT)
BUFFERS = (
    Buffer("x", (4, 6), F32, (6, 1), "input"),
    Buffer("t", (4, 6), F32, (6, 1), "temp"),
    Buffer("y", (4, 6), F32, (6, 1), "output"),
)
WHOLE = Strided("y", (4, 6), (6, 1))


def kernel(name, phases, reads=("x",), writes=("y",)):
    return Kernel(name, "row_reduce", (ROW,), tuple(phases), reads, writes, Tile())


def stores(body=LOAD, offset=AT, cols=(COL,), to="y"):
    return [Phase(cols, stores=(Store(to, offset, body),))]


PREFIX = Prefix("s", "sum", F32, LOAD)


def scans(*prefixes):
    return Phase((COL,), stores=(Store("y", AT, b.Ref(F32, "s")),), scans=prefixes)


def program(*steps, **changes):
    return replace(Program(BUFFERS, steps, (WHOLE,)), **changes)


def test_a_program_that_keeps_the_rules_comes_back():
    total = b.Ref(F32, "total")
    phases = [
        Phase((COL,), (Fold("total", "sum", F32, b.Ref(F32, "e")),), keeps=(Keep("e", LOAD),)),
        *stores(b.Apply(F32, "div", (b.Ref(F32, "e"), total))),
    ]
    first = kernel("first", stores(to="t"), writes=("t",))
    call = LibraryCall("abs", "torch.abs", (Strided("t", (6, 4), (1, 6)),), (), ("t",))
    p = program(first, call, kernel("k", phases), updates=(("x", Strided("t", (4, 6), (6, 1))),))
    assert check_program(p) is p


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        (stores(b.Load(F32, "x", AT + 1)), r"k loads outside x: .* at {'i': 3, 'j': 5}"),
        (stores(b.Load(F32, "z", AT)), "k loads z, which is not among its reads"),
        (stores(b.Load(dt.FLOAT64, "x", AT)), "k loads x as float64"),
        (stores(b.Load(F32, "x", ix.Var("q", 3))), r"variables \['q'\]"),
        (stores(offset=AT + 1), "k stores to y outside"),
        (stores(offset=ROW * 6), "k stores to y twice"),
        (stores(b.Lit(dt.INT64, 3)), "k stores to y a int64"),
        (stores(b.Ref(F32, "s")), "s is used before it has a value"),
        (stores(b.Apply(F32, "add", (LOAD, b.Lit(dt.FLOAT64, 1.0)))), "operands of add have"),
        (stores(b.Apply(F32, "bitwise_and", (LOAD, LOAD))), "not defined on float32"),
        (stores(b.Choose(F32, LOAD, LOAD, LOAD)), "condition of type float32"),
        (stores(b.Load(F32, "x", COL, ((b.Lit(dt.INT64, 0), 6),))), "unchecked"),
        (stores(cols=(), offset=ROW * 6, body=b.Lit(F32, 0.0)), "y is read before all of it"),
        (stores(to="t"), "which is not among its writes"),
        ([Phase((COL,), (Fold("s", "sum", F32, LOAD),))], "k never stores to y"),
        ([scans(PREFIX, replace(PREFIX, name="r", reverse=True))], "runs against another"),
        ([scans(PREFIX, PREFIX)], "s is named twice"),
        ([scans(replace(PREFIX, kind="argmax"))], "position of scan s"),
        ([scans(PREFIX), *stores(b.Ref(F32, "s"))], "s is used before it has a value"),
        ([Phase((COL, ix.Var("q", 2)), scans=(PREFIX,))], "needs one column variable"),
        ([Phase((COL,), (Fold("s", "argmax", dt.INT64, LOAD),))], "position of fold s"),
    ],
)
def test_a_broken_kernel_is_named(phases, message):
    with pytest.raises(IRError, match=message):
        check_program(program(kernel("k", phases)))


def test_guarded_loads_are_checked_under_their_guards():
    shifted = b.Load(F32, "x", AT - 1)
    fine = b.guarded((ix.at_least(AT, 1),), shifted, LOAD)
    check_program(program(kernel("k", stores(fine))))
    with pytest.raises(IRError, match="loads outside x"):
        check_program(program(kernel("k", stores(b.guarded((ix.less(COL, 3),), shifted, LOAD)))))
    other = b.guarded((ix.less(AT, 1),), LOAD, shifted)
    check_program(program(kernel("k", stores(other))))


def test_buffers_are_written_before_they_are_read():
    late = kernel("late", stores(to="t"), writes=("t",))
    early = kernel("early", stores(b.Load(F32, "t", AT)), reads=("t",))
    check_program(program(late, early))
    with pytest.raises(IRError, match="early reads t before"):
        check_program(program(early, late))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"buffers": (*BUFFERS, BUFFERS[0])}, "buffer names not unique: x"),
        ({"returns": (Strided("y", (4, 7), (6, 1)),)}, "reaches outside y"),
        ({"returns": (Strided("q", (4,), (1,)),)}, "there is no buffer 'q'"),
        ({"updates": (("y", WHOLE),)}, "update of y, which is no input"),
        ({"updates": (("x", Strided("y", (4,), (1,))),)}, "update of x: shape"),
    ],
)
def test_a_broken_program_is_named(changes, message):
    with pytest.raises(IRError, match=message):
        check_program(program(kernel("k", stores()), **changes))
