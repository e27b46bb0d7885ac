"""Elementwise ops against eager: many ops in one graph, for each dtype."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from .harness import check_function

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
INTS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
NAN, INF = float("nan"), float("inf")

UNARY = (
    *("exp", "exp2", "expm1", "sin", "cos", "tan", "atan", "sinh", "cosh", "tanh", "asinh"),
    *("erf", "erfc", "sigmoid", "floor", "ceil", "round", "trunc", "neg", "abs", "sign", "relu"),
    *("isnan", "isinf", "isfinite", "logical_not", "square", "frac", "sinc", "signbit"),
    *("nan_to_num", "positive", "sgn", "isneginf", "isposinf", "deg2rad"),
)
UNIT = ("asin", "acos", "atanh", "erfinv", "logit")
POSITIVE = (
    *("log", "log2", "log10", "log1p", "sqrt", "rsqrt", "reciprocal", "acosh", "lgamma"),
    *("digamma",),
)
ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "silu": F.silu,
    "mish": F.mish,
    "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish,
    "hardtanh": partial(F.hardtanh, min_val=-0.5, max_val=0.75),
    "relu6": F.relu6,
    "elu": partial(F.elu, alpha=1.5),
    "selu": F.selu,
    "celu": partial(F.celu, alpha=0.7),
    "leaky_relu": partial(F.leaky_relu, negative_slope=0.2),
    "softplus": partial(F.softplus, beta=2, threshold=1.5),
    "softsign": F.softsign,
    "tanhshrink": F.tanhshrink,
    "logsigmoid": F.logsigmoid,
    "hardshrink": F.hardshrink,
    "softshrink": F.softshrink,
    "threshold": partial(F.threshold, threshold=0.1, value=7.0),
    "glu": F.glu,
    "rrelu_eval": partial(F.rrelu, training=False),
    "softmin": partial(F.softmin, dim=-1),
    "normalize": F.normalize,
}


def all_of(ops: dict[str, Callable[..., Any]]) -> Callable[..., dict[str, Any]]:
    return lambda *xs: {name: op(*xs) for name, op in ops.items()}


def named(*names: str) -> dict[str, Callable[..., Any]]:
    return {name: getattr(torch, name) for name in names}


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_unary(dtype: torch.dtype) -> None:
    x = (torch.randn(5, 8) * 2).to(dtype)
    x[0, :4] = torch.tensor([NAN, INF, -INF, -0.0])
    check_function(all_of(named(*UNARY)), x)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_unary_on_part_of_the_line(dtype: torch.dtype) -> None:
    x = torch.rand(5, 8).to(dtype) * 0.9 + 0.05
    check_function(all_of(named(*UNIT, *POSITIVE[:-3])), x)
    check_function(all_of(named(*POSITIVE)), x * 5 + 1)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_activations(dtype: torch.dtype) -> None:
    x = (torch.randn(5, 8) * 3).to(dtype)
    x[0, 0] = NAN
    check_function(all_of(ACTIVATIONS), x)


@pytest.mark.parametrize("dtype", (*INTS, torch.bool), ids=str)
def test_unary_of_integers(dtype: torch.dtype) -> None:
    x = torch.randint(0, 9, (3, 5)).to(dtype)
    ops = named("exp", "sigmoid", "sqrt", "isnan", "isfinite", "logical_not", "sign", "sin")
    if dtype != torch.bool:
        ops |= named("abs", "floor", "round", "relu", "bitwise_not", "square")
        ops["neg"] = torch.neg
    check_function(all_of(ops), x)


ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "add": torch.add,
    "add_alpha": lambda a, b: torch.add(a, b, alpha=3),
    "mul": torch.mul,
    "div": torch.div,
    "div_floor": lambda a, b: torch.div(a, b, rounding_mode="floor"),
    "div_trunc": lambda a, b: torch.div(a, b, rounding_mode="trunc"),
    "floor_divide": torch.floor_divide,
    "remainder": torch.remainder,
    "fmod": torch.fmod,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "eq": torch.eq,
    "ne": torch.ne,
    "lt": torch.lt,
    "le": torch.le,
    "gt": torch.gt,
    "ge": torch.ge,
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
}
FLOAT_ONLY: dict[str, Callable[[Any, Any], Any]] = {
    "sub": torch.sub,
    "sub_alpha": lambda a, b: torch.sub(a, b, alpha=2),
    "rsub": lambda a, b: torch.rsub(a, b, alpha=2),
    "fmax": torch.fmax,
    "fmin": torch.fmin,
    "atan2": torch.atan2,
    "hypot": torch.hypot,
    "copysign": torch.copysign,
    "pow": lambda a, b: torch.pow(a.abs(), b),
    "logaddexp": torch.logaddexp,
    "xlogy": lambda a, b: torch.xlogy(a, b.abs()),
    "heaviside": torch.heaviside,
    "nextafter": torch.nextafter,
    "xlog1py": lambda a, b: torch.special.xlog1py(a, b.abs()),
    "float_power": lambda a, b: torch.float_power(a.abs(), b),
}


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_binary_with_broadcasting(dtype: torch.dtype) -> None:
    a, b = torch.randn(4, 1, 6).to(dtype), torch.randn(5, 1).to(dtype) + 0.1
    ops = {**ARITHMETIC, **FLOAT_ONLY}
    if dtype in (torch.float16, torch.bfloat16):
        del ops["hypot" if dtype == torch.float16 else "heaviside"], ops["nextafter"]
    check_function(all_of(ops), a, b)


@pytest.mark.parametrize("dtype", INTS, ids=str)
def test_binary_of_integers(dtype: torch.dtype) -> None:
    a = torch.randint(0, 9, (4, 6)).to(dtype)
    b = torch.randint(1, 5, (6,)).to(dtype)
    ops = {**ARITHMETIC, "sub": torch.sub, "pow": torch.pow}
    ops |= named("bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_left_shift", "atan2")
    check_function(all_of(ops), a, b)


def test_binary_of_bools() -> None:
    a, b = torch.tensor([True, False, True, False]), torch.tensor([True, True, False, False])
    ops = named("add", "mul", "logical_and", "bitwise_or", "bitwise_xor", "maximum", "eq", "lt")
    ops["div"] = torch.div
    check_function(all_of(ops), a, b)


DTYPES = (torch.bool, torch.uint8, torch.int32, torch.int64, torch.float16, torch.bfloat16)


def test_type_promotion() -> None:
    """Every pair of dtypes, with axes and 0-dim, and Python scalars of each kind."""
    kinds = (*DTYPES, torch.int8, torch.float32, torch.float64)
    xs = [torch.ones(3, dtype=d) for d in kinds]
    zs = [torch.ones((), dtype=d) for d in kinds]

    def promoted(*tensors: torch.Tensor) -> list[torch.Tensor]:
        vectors, scalars = tensors[: len(kinds)], tensors[len(kinds) :]
        out = [a + b for a in vectors for b in vectors]
        out += [a * b for a in vectors for b in scalars]
        out += [a + b for a in scalars for b in scalars]
        out += [a + s for a in (*vectors, *scalars) for s in (True, 2, 0.5)]
        return out

    check_function(promoted, *xs, *zs)


def test_scalars_and_powers() -> None:
    def powers(x: torch.Tensor) -> list[torch.Tensor]:
        out = [x.abs() ** p for p in (0, 1, 2, 3, 4, -1, -2, 0.5, -0.5, 2.5)]
        return [*out, 2**x, 1.0**x, x / 3, 3 / x, 5 - x, x // 0.7, x % 0.7, x > 0.1, -x * 1e-3]

    for dtype in (torch.float32, torch.float16):
        check_function(powers, torch.randn(4, 5).to(dtype) + 0.05)


def test_ternary_ops() -> None:
    def ops(a: Any, b: Any, c: Any, mask: Any) -> dict[str, Any]:
        return {
            "addcmul": torch.addcmul(a, b, c, value=0.5),
            "addcdiv": torch.addcdiv(a, b, c, value=0.5),
            "lerp": torch.lerp(a, b, c),
            "lerp_scalar": torch.lerp(a, b, 0.75),
            "where": torch.where(mask, a, b),
            "where_scalar": torch.where(mask, a, 2.0),
            "masked_fill": a.masked_fill(mask, -INF),
            "masked_fill_tensor": a.masked_fill(mask, b.sum()),
            "clamp": torch.clamp(a, -0.5, 0.5),
            "clamp_min": a.clamp(min=0.1),
            "clamp_max": a.clamp(max=0.1),
            "clamp_tensors": torch.clamp(a, b, c),
            "prelu": F.prelu(a, b[0, :1].abs()),
            "prelu_channels": F.prelu(a, c[0].abs()),
            "masked_write": _masked_write(a, mask),
        }

    for dtype in (torch.float32, torch.bfloat16):
        a, b, c = (torch.randn(4, 5).to(dtype) for _ in range(3))
        check_function(ops, a, b, c + 0.1, torch.rand(4, 5) > 0.5)


def _masked_write(a: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    out = a.clone()
    out[mask] = 7.0
    return out


def test_conversions() -> None:
    def ops(x: torch.Tensor, k: torch.Tensor) -> list[torch.Tensor]:
        targets = (*DTYPES, torch.float64, torch.int8)
        return [*(x.to(d) for d in targets), *(k.to(d) for d in targets), x.type_as(k), k.bool()]

    check_function(ops, torch.randn(3, 4).abs() * 5, torch.randint(0, 5, (3, 4)))
