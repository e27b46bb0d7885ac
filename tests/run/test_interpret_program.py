"""The interpreter of the kernel level against eager torch, and the contracts it enforces."""

import pytest
import torch

from fusewright.errors import IRError
from fusewright.ir import body as b
from fusewright.ir import dtypes as dt
from fusewright.ir import index as ix
from fusewright.ir import offsets
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
from fusewright.run.interpret import interpret_program

F32 = dt.FLOAT32
ROW, COL = ix.Var("i", 4), ix.Var("j", 6)
OFFSET = ROW * 6 + COL


def buffer(name, shape, role, dtype=F32, strides=None):
    return Buffer(name, shape, dtype, strides or offsets.row_major(shape), role)


X, Y = buffer("x", (4, 6), "input"), buffer("y", (4, 6), "output")
WHOLE = Strided("y", (4, 6), (6, 1))


def program(phases, buffers=(X, Y), rows=(ROW,), reads=("x",), writes=("y",), returns=(WHOLE,)):
    kernel = Kernel("k", "row_reduce", rows, tuple(phases), reads, writes, Tile())
    return Program(tuple(buffers), (kernel,), tuple(returns))


def run(p, **inputs):
    outputs, _ = interpret_program(p, inputs)
    return outputs[0]


def apply(op, *args):
    return b.Apply(F32, op, args)


def softmax_phases():
    x = b.Load(F32, "x", OFFSET)
    top = Fold("top", "max", F32, x)
    power = apply("exp", apply("sub", x, b.Ref(F32, "top")))
    kept = b.Ref(F32, "power")
    total = Fold("total", "sum", F32, kept)
    out = apply("div", kept, b.Ref(F32, "total"))
    return (
        Phase((COL,), (top,)),
        Phase((COL,), (total,), keeps=(Keep("power", power),)),
        Phase((COL,), stores=(Store("y", OFFSET, out),)),
    )


def test_softmax_in_three_phases(monkeypatch):
    x = torch.randn(4, 6)
    torch.testing.assert_close(run(program(softmax_phases()), x=x), x.softmax(1))
    monkeypatch.setattr("fusewright.run.interpret_program.CHUNK", 6)
    torch.testing.assert_close(run(program(softmax_phases()), x=x), x.softmax(1))


def test_strided_and_expanded_inputs():
    x = torch.randn(6, 4).t()
    store = Store("y", OFFSET, b.Load(F32, "x", COL * 4 + ROW))
    strided = buffer("x", (4, 6), "input", strides=(1, 4))
    assert torch.equal(run(program([Phase((COL,), stores=(store,))], (strided, Y)), x=x), x)
    row = torch.randn(6).expand(4, 6)
    store = Store("y", OFFSET, b.Load(F32, "x", COL))
    expanded = buffer("x", (4, 6), "input", strides=(0, 1))
    assert torch.equal(run(program([Phase((COL,), stores=(store,))], (expanded, Y)), x=row), row)


def test_guards_admit_loads_that_would_leave_the_buffer():
    shifted = b.guarded((ix.at_least(COL, 1),), b.Load(F32, "x", OFFSET - 1), b.Lit(F32, 9.0))
    x = torch.randn(4, 6)
    out = run(program([Phase((COL,), stores=(Store("y", OFFSET, shifted),))]), x=x)
    assert torch.equal(out[:, 1:], x[:, :-1])
    assert (out[:, 0] == 9).all()


def test_the_other_branch_of_a_guard_is_not_loaded_where_the_guard_holds():
    past = b.Load(F32, "x", OFFSET - 3)
    either = b.guarded((ix.less(OFFSET, 3),), b.Lit(F32, 0.0), past)
    x = torch.randn(4, 6)
    out = run(program([Phase((COL,), stores=(Store("y", OFFSET, either),))]), x=x)
    assert torch.equal(out.reshape(-1)[3:], x.reshape(-1)[:-3])


@pytest.mark.parametrize(
    ("kind", "dtype", "want"),
    [
        ("sum", dt.FLOAT64, lambda x: x.double().sum(1)),
        ("min", F32, lambda x: x.amin(1)),
        ("prod", F32, lambda x: x.prod(1)),
    ],
)
def test_folds(kind, dtype, want):
    out = buffer("y", (4,), "output", dtype)
    phases = (
        Phase((COL,), (Fold("s", kind, dtype, b.Load(F32, "x", OFFSET)),)),
        Phase((), stores=(Store("y", ROW, b.Ref(dtype, "s")),)),
    )
    x = torch.randn(4, 6)
    got = run(program(phases, (X, out), returns=(Strided("y", (4,), (1,)),)), x=x)
    torch.testing.assert_close(got, want(x))


def test_argmax_reports_the_position():
    out = buffer("y", (4,), "output", dt.INT64)
    fold = Fold("s", "argmax", dt.INT64, b.Load(F32, "x", OFFSET), position=COL)
    phases = (
        Phase((COL,), (fold,)),
        Phase((), stores=(Store("y", ROW, b.Ref(dt.INT64, "s")),)),
    )
    x = torch.randn(4, 6)
    got = run(program(phases, (X, out), returns=(Strided("y", (4,), (1,)),)), x=x)
    assert torch.equal(got, x.argmax(1))


def scanned(prefix, out=F32):
    y = buffer("y", (4, 6), "output", out)
    phase = Phase((COL,), stores=(Store("y", OFFSET, b.Ref(out, "run")),), scans=(prefix,))
    return program((phase,), (X, y))


def test_scans_run_along_the_columns():
    x, load = torch.randn(4, 6), b.Load(F32, "x", OFFSET)
    torch.testing.assert_close(run(scanned(Prefix("run", "sum", F32, load)), x=x), x.cumsum(1))
    back = Prefix("run", "prod", F32, load, reverse=True, exclusive=True)
    torch.testing.assert_close(
        run(scanned(back), x=x)[:, :-1], x.flip(1).cumprod(1).flip(1)[:, 1:]
    )
    at = Prefix("run", "argmax", F32, load, position=10 * COL)
    assert torch.equal(run(scanned(at, dt.INT64), x=x), 10 * x.cummax(1).indices)


def test_a_scan_of_a_scan_beside_a_fold_of_it():
    x, load = torch.randn(4, 6), b.Load(F32, "x", OFFSET)
    once = Prefix("once", "sum", F32, load)
    twice = Prefix("twice", "max", F32, b.Ref(F32, "once"))
    total = Fold("total", "sum", F32, b.Ref(F32, "twice"))
    phase = Phase((COL,), (total,), scans=(once, twice))
    store = Phase((), stores=(Store("y", ROW, b.Ref(F32, "total")),))
    p = program((phase, store), (X, buffer("y", (4,), "output")),
                returns=(Strided("y", (4,), (1,)),))  # fmt: skip
    torch.testing.assert_close(run(p, x=x), x.cumsum(1).cummax(1).values.sum(1))


def test_a_gather_checks_its_indices():
    at = buffer("at", (4, 6), "input", dt.INT64)
    index = b.Checked(dt.INT64, b.Load(dt.INT64, "at", OFFSET), 4)
    store = Store("y", OFFSET, b.Load(F32, "x", COL, ((index, 6),)))
    p = program([Phase((COL,), stores=(store,))], (X, at, Y), reads=("x", "at"))
    x, where = torch.randn(4, 6), torch.randint(0, 4, (4, 6))
    assert torch.equal(run(p, x=x, at=where), x.gather(0, where))
    with pytest.raises(IndexError, match=r"outside \[0, 4\)"):
        run(p, x=x, at=where - 4)


def test_library_calls_and_updates():
    call = LibraryCall(
        "mm",
        "torch.mm",
        (Strided("x", (4, 6), (6, 1)), Strided("x", (6, 4), (1, 6))),
        (),
        ("y",),
    )
    out = buffer("y", (4, 4), "output")
    whole = Strided("y", (4, 4), (4, 1))
    p = Program((X, out), (call,), (whole,), (("x", Strided("y", (4, 6), (4, 0))),))
    x = torch.randn(4, 6)
    outputs, updates = interpret_program(p, {"x": x})
    assert torch.equal(outputs[0], x @ x.t())
    assert updates["x"].shape == (4, 6)


@pytest.mark.parametrize(
    ("store", "message"),
    [
        (Store("y", OFFSET, b.Load(F32, "x", OFFSET + 1)), "loads outside 'x'"),
        (Store("y", OFFSET + 1, b.Load(F32, "x", OFFSET)), "stores outside 'y'"),
        (Store("y", ROW * 6, b.Load(F32, "x", OFFSET)), "stores twice"),
        (Store("y", OFFSET, b.Load(F32, "y", OFFSET)), "that nobody wrote"),
        (Store("y", OFFSET, b.Coord(dt.INT64, COL)), "stores torch.int64"),
        (Store("y", OFFSET, b.Ref(F32, "s")), "before it has a value"),
    ],
)
def test_broken_contracts_are_errors(store, message):
    with pytest.raises(IRError, match=message):
        run(program([Phase((COL,), stores=(store,))]), x=torch.randn(4, 6))


def test_an_output_that_is_not_written_completely_is_an_error():
    store = Store("y", ROW * 6, b.Lit(F32, 1.0))
    with pytest.raises(IRError, match="before all of it is written"):
        run(program([Phase((), stores=(store,))]), x=torch.randn(4, 6))


def test_a_deep_body():
    x = b.Load(F32, "x", OFFSET)
    for _ in range(5000):
        x = apply("add", x, b.Lit(F32, 1.0))
    out = run(program([Phase((COL,), stores=(Store("y", OFFSET, x),))]), x=torch.zeros(4, 6))
    assert (out == 5000).all()
