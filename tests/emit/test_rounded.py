"""Short functions of values that are rounded to 16 bits: where they stand, and how exact they are.

The approximate instructions are off by their documented bounds here (simt/cuda_on_cpu.hpp).
"""

import pytest
import torch

from emit.nests import F32, Case, buffer, kernel, lit, load, op, program, ref, run_on_simt, var
from fusewright.emit.cuda import cuda_kernel
from fusewright.ir import body as b
from fusewright.ir import dtypes as dt
from fusewright.ir.kernel import Fold, Phase, Store, Tile

N = 1 << 16
FUNCTIONS = {
    "exp": (lambda x: op("exp", x), torch.exp),
    "expm1": (lambda x: op("expm1", x), torch.expm1),
    "log1p": (lambda x: op("log1p", x), torch.log1p),
    "softplus": (lambda x: op("log1p", op("exp", x)), lambda x: x.exp().log1p()),
    "scaled": (lambda x: op("neg", op("mul", op("expm1", x), lit(1.75))),
               lambda x: -1.75 * x.expm1()),
}


def every_value(dtype) -> torch.Tensor:
    return torch.arange(N).to(torch.int16).view(dtype)


def pointwise(value, of: dt.DType, to: dt.DType) -> Case:
    """`to(value(float(x)))` of every value of the 16-bit type `of`."""
    i = var("i", N)
    x = b.Convert(F32, load("x", i, of))
    body = value(x) if to == F32 else b.Convert(to, value(x))
    k = kernel("half", "elementwise", (i,), (Phase((), stores=(Store("y", i * 1, body),)),),
               Tile(256, 8, 1))
    p = program([buffer("x", (N,), dtype=of), buffer("y", (N,), "output", to)], k)
    return Case(p, {"x": every_value(getattr(torch, of.name))}, ())


def text(case: Case) -> str:
    return cuda_kernel(case.program.steps[0], {x.name: x for x in case.program.buffers}).device


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("of", [dt.BFLOAT16, dt.FLOAT16], ids=lambda t: t.name)
def test_every_value_is_rounded_as_well_as_to_a_sixteenth(name, of):
    value, exact = FUNCTIONS[name]
    case = pointwise(value, of, of)
    assert "fw_short_" in text(case)
    _, (y,) = run_on_simt(case.program, case.inputs)
    x = case.inputs["x"].double()
    truth, single, y = exact(x), exact(x.float()).double(), y.double()
    info = torch.finfo(case.inputs["x"].dtype)
    special = ~single.isfinite()
    assert torch.equal(y[special].nan_to_num(2.5), single[special].nan_to_num(2.5))
    normal = ~special & (truth.abs() >= 2 * info.tiny) & (truth.abs() <= info.max)
    error = ((y - truth).abs() / truth.abs())[normal]
    assert normal.sum() > 20000 and error.max() <= info.eps / 2 * (1 + 1 / 16)
    tiny = truth.abs() < 2 * info.tiny
    assert (y - truth)[tiny].abs().max() <= info.tiny * info.eps


def one_plus_erf(x: b.Expr) -> b.Expr:
    return op("add", op("erf", x), lit(1.0))


def gelu(x: b.Expr) -> b.Expr:
    return op("mul", op("mul", x, lit(0.5)), one_plus_erf(op("mul", x, lit(0.5**0.5))))


# The body, the value in float64 and in float32 as CUDA's eager computes it.
ERF = {
    "one_plus_erf": (one_plus_erf, lambda x: (-x).erfc(), lambda x: x.erf() + 1),
    "gelu": (gelu, lambda x: x / 2 * (x * -(0.5**0.5)).erfc(),
             lambda x: x * 0.5 * ((x * 0.5**0.5).erf() + 1)),
}


@pytest.mark.parametrize("name", ERF)
@pytest.mark.parametrize("of", [dt.BFLOAT16, dt.FLOAT16], ids=lambda t: t.name)
def test_one_plus_erf_keeps_its_lower_tail(name, of):
    """As exact as the others down to 2^-30, which is less than what float32's own sum is off by."""
    value, exact, eager = ERF[name]
    case = pointwise(value, of, of)
    assert "fw_short_one_plus_erf(" in text(case) and "erff(" not in text(case)
    _, (y,) = run_on_simt(case.program, case.inputs)
    x, info = case.inputs["x"], torch.finfo(case.inputs["x"].dtype)
    truth, single, y = exact(x.double()), eager(x.float()), y.double()
    special = ~single.isfinite()
    assert torch.equal(y[special].nan_to_num(2.5), single.double()[special].nan_to_num(2.5))
    allowed = truth.abs() * (info.eps / 2) * (1 + 1 / 16)
    allowed += (truth.abs() < 2 * info.tiny) * info.tiny * info.eps + (x <= -4.3) * 2**-30
    assert ((y - truth).abs() <= allowed)[~special].all()


def test_erf_alone_and_other_sums_are_whole():
    for value in (lambda x: op("erf", x), lambda x: op("add", op("erf", x), lit(0.5))):
        assert "short" not in text(pointwise(value, dt.BFLOAT16, dt.BFLOAT16))
    assert "short" not in text(pointwise(one_plus_erf, dt.BFLOAT16, F32))


def test_what_is_not_rounded_is_whole():
    assert "short" not in text(pointwise(FUNCTIONS["expm1"][0], dt.BFLOAT16, F32))


def test_what_is_added_or_used_in_full_elsewhere_is_whole():
    def cancels(x):
        return op("sub", op("exp", x), lit(1.0))

    def chained(x):
        return op("mul", op("mul", op("exp", x), op("expm1", x)), op("log1p", x))

    def inside(x):
        return op("exp", op("expm1", x))

    for value in (cancels, chained):
        assert "short" not in text(pointwise(value, dt.BFLOAT16, dt.BFLOAT16))
    assert "fw_short_exp(expm1f(" in text(pointwise(inside, dt.BFLOAT16, dt.BFLOAT16))


def test_a_fold_takes_whole_values():
    i, j = var("i", 4), var("j", 64)
    power = op("exp", b.Convert(F32, load("x", i * 64 + j, dt.BFLOAT16)))
    share = b.Convert(dt.BFLOAT16, op("div", power, ref("total")))
    phases = (Phase((j,), folds=(Fold("total", "sum", F32, power),)),
              Phase((j,), stores=(Store("y", i * 64 + j, share),)))
    k = kernel("shares", "row_reduce", (i,), phases, Tile(64, 1, 1, 32))
    shapes = [buffer("x", (4, 64), dtype=dt.BFLOAT16), buffer("y", (4, 64), "output", dt.BFLOAT16)]
    found = text(Case(program(shapes, k), {}, ()))
    assert found.count("expf(") == 1 and found.count("fw_short_exp(") == 1
