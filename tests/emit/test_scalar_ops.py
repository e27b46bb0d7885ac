"""Every scalar operation and conversion, in both dialects, on values where they go wrong."""

import itertools

import pytest
import torch

from emit.nests import (
    Case,
    buffer,
    check_together,
    kernel,
    load,
    op,
    program,
    run_on_cpu,
    run_on_simt,
    var,
)
from fusewright.emit.spell import apply_op
from fusewright.errors import IRError
from fusewright.ir import body as b
from fusewright.ir import dtypes as dt
from fusewright.ir.kernel import Phase, Store
from fusewright.ir.scalar import OPS, ScalarOp, result_dtype
from fusewright.run.interpret import interpret_program

RUNS = {"cpu": run_on_cpu, "cuda": run_on_simt}
INF, NAN = float("inf"), float("nan")
FLOATS = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 3.0, -7.25, 1e-30, 88.0, 1e30]
FLOATS += [INF, -INF, NAN]
INTS = [0, 1, -1, 2, 3, -3, 7, 12, -12, 64, 100, -100]
# The device helpers that the CPU shim has no function for; the GPU tests cover them.
DEVICE_ONLY = {"erfinv", "digamma", "lgamma"}
# Division by zero: an error in eager, unspecified on CUDA.
DIVISIONS = {"floor_div", "trunc_div", "fmod", "remainder"}


def values(dtype: dt.DType) -> list[float | int | bool]:
    if dtype.kind == "bool":
        return [False, True]
    if dtype.is_float:
        return FLOATS
    return INTS if dtype.signed else [200, *(x for x in INTS if x >= 0)]


def operands(spec: ScalarOp, dtype: dt.DType) -> list[torch.Tensor]:
    """All tuples of interesting values, one tensor per operand."""
    tuples = itertools.product(values(dtype), repeat=spec.arity)
    tuples = [t for t in tuples if is_defined(spec, dtype, t)]
    torch_dtype = getattr(torch, dtype.name)
    return [torch.tensor(column, dtype=torch_dtype) for column in zip(*tuples, strict=True)]


def is_defined(spec: ScalarOp, dtype: dt.DType, args: tuple) -> bool:
    """Whether eager has a right answer. Its vector code gives NaN for fmod(1e30, 1e-30)."""
    if dtype.is_float:
        return spec.name not in DIVISIONS or args != (1e30, 1e-30)
    if dtype.kind == "bool":
        return True
    if spec.name in DIVISIONS:
        return args[1] != 0
    if spec.name == "pow":
        return args[1] >= 0
    return True


def one_op(spec: ScalarOp, dtype: dt.DType) -> Case:
    xs = operands(spec, dtype)
    n = var("n", len(xs[0]))
    out = result_dtype(spec, dtype)
    body = op(spec.name, *(load(f"x{k}", n, dtype) for k in range(spec.arity)))
    buffers = [buffer(f"x{k}", (n.extent,), dtype=dtype) for k in range(spec.arity)]
    phases = (Phase((), stores=(Store("y", n * 1, body),)),)
    k = kernel(spec.name, "elementwise", (n,), phases)
    p = program([*buffers, buffer("y", (n.extent,), "output", out)], k)
    inputs = {f"x{k}": x for k, x in enumerate(xs)}
    return Case(p, inputs, tuple(interpret_program(p, inputs).outputs))


def cases(dtypes: tuple[dt.DType, ...], without: set[str]) -> list[Case]:
    return [
        one_op(spec, d)
        for spec in OPS.values()
        for d in dtypes
        if d.kind in spec.on and spec.name not in without
    ]


def every_operation() -> list[Case]:
    """One kernel for each operation and type."""
    return cases(tuple(d for d in dt.ALL if d.bits != 16 or d.kind == "int"), set())


@pytest.mark.parametrize("dialect", RUNS)
def test_float_operations(dialect):
    without = DEVICE_ONLY if dialect == "cuda" else set()
    found = cases((dt.FLOAT32, dt.FLOAT64), without)
    check_together(found, RUNS[dialect], rtol=2e-6, atol=1e-30)


@pytest.mark.parametrize("dialect", RUNS)
def test_integer_and_bool_operations(dialect):
    found = cases((dt.BOOL, dt.UINT8, dt.INT8, dt.INT32, dt.INT64), set())
    check_together(found, RUNS[dialect], rtol=0, atol=0)


@pytest.mark.parametrize("dialect", RUNS)
def test_division_of_integers_by_zero_does_not_crash(dialect):
    found = []
    for name in sorted(DIVISIONS):
        case = one_op(OPS[name], dt.INT32)
        case.inputs["x1"].zero_()
        found.append(case)
    for case in found:
        codes, _ = RUNS[dialect](case.program, case.inputs)
        assert codes == [0]


def conversion(source: dt.DType, target: dt.DType) -> Case:
    small = [x for x in values(source) if not source.is_float or abs(x) < 100]
    x = torch.tensor(small, dtype=getattr(torch, source.name))
    if source.is_float and target.kind == "int" and not target.signed:
        x = x.clamp(min=-1)
    n = var("n", len(x))
    phases = (Phase((), stores=(Store("y", n * 1, b.Convert(target, load("x", n, source))),)),)
    k = kernel(f"{source.name}_to_{target.name}", "elementwise", (n,), phases)
    p = program([buffer("x", x.shape, dtype=source), buffer("y", x.shape, "output", target)], k)
    return Case(p, {"x": x}, (x.to(getattr(torch, target.name)),))


@pytest.mark.parametrize("dialect", RUNS)
def test_conversions(dialect):
    found = [conversion(a, z) for a, z in itertools.permutations(dt.ALL, 2)]
    check_together(found, RUNS[dialect], rtol=0, atol=0)


def test_an_unknown_operation_is_named():
    with pytest.raises(IRError, match="frobnicate on float32"):
        apply_op("frobnicate", [], dt.FLOAT32, dt.FLOAT32, "cpu")
