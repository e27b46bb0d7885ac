"""Arithmetic on constants as the compiled program would do it, and exactness questions about it.

Floats are rounded to the type the program computes in, integers wrap. No graph is looked at here.
"""

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from types import MappingProxyType

import numpy as np

from fusewright.ir.dtypes import FLOAT32, FLOAT64, DType, compute_type
from fusewright.ir.graph import Scalar

INF = math.inf


def rounded(value: Scalar, dtype: DType) -> Scalar:
    """`value` as arithmetic on `dtype` holds it: float32 for the 16-bit floats, wrapped ints."""
    if dtype.kind == "bool":
        return bool(value)
    if dtype.kind == "int":
        return wrapped(int(value), dtype)
    if compute_type(dtype) == FLOAT32:
        with np.errstate(over="ignore"):
            return float(np.float32(value))
    return float(value)


def wrapped(value: int, dtype: DType) -> int:
    """`value` modulo 2**bits in the range of `dtype`."""
    value %= 1 << dtype.bits
    return value - (1 << dtype.bits) if dtype.signed and value >> (dtype.bits - 1) else value


def stored(value: Scalar, dtype: DType) -> Scalar:
    """`value` rounded to `dtype` itself, as a cast rounds (16-bit floats lose more bits)."""
    if dtype.name == "float16":
        with np.errstate(over="ignore"):
            return float(np.float16(value))
    if dtype.name == "bfloat16" and math.isfinite(value):
        bits = int(np.float32(value).view(np.uint32))
        bits += 0x7FFF + ((bits >> 16) & 1)
        return float(np.uint32(bits & 0xFFFF0000).view(np.float32))
    return rounded(value, dtype)


def is_normal(value: Scalar, dtype: DType) -> bool:
    """Whether `value` is 0 or neither overflows nor loses bits to underflow in `dtype`."""
    if dtype.kind != "float":
        return True
    low = 2.0**-1022 if compute_type(dtype) == FLOAT64 else 2.0**-126
    return value == 0 or (low <= abs(value) and math.isfinite(rounded(value, dtype)))


def is_power_of_two(value: Scalar) -> bool:
    """Whether multiplying by `value` or by its reciprocal is exact barring over- and underflow."""
    return math.isfinite(value) and value != 0 and abs(math.frexp(value)[0]) == 0.5


def quotient(a: Scalar, b: Scalar) -> float:
    """a / b rounded once."""
    return float(Fraction(a) / Fraction(b))


def _divide(a: float, b: float) -> float:
    if b == 0:
        return math.nan if a == 0 or math.isnan(a) else math.copysign(INF, a) * math.copysign(1, b)
    return a / b


def _larger(a: Scalar, b: Scalar) -> Scalar:
    return a if a >= b or a != a else b


def _smaller(a: Scalar, b: Scalar) -> Scalar:
    return a if a <= b or a != a else b


_FUNCTIONS: Mapping[str, Callable[..., Scalar]] = MappingProxyType(
    {
        "neg": lambda a: -a,
        "abs": abs,
        "sign": lambda a: a if a != a else (a > 0) - (a < 0),
        "reciprocal": lambda a: _divide(1.0, a),
        "sqrt": math.sqrt,
        "rsqrt": lambda a: _divide(1.0, math.sqrt(a)),
        "exp": math.exp,
        "exp2": lambda a: 2.0**a,
        "expm1": math.expm1,
        "log": math.log,
        "log2": math.log2,
        "log10": math.log10,
        "log1p": math.log1p,
        "sin": math.sin,
        "cos": math.cos,
        "tanh": math.tanh,
        "erf": math.erf,
        "sigmoid": lambda a: 1.0 / (1.0 + math.exp(-a)),
        "floor": lambda a: float(math.floor(a)),
        "ceil": lambda a: float(math.ceil(a)),
        "round": lambda a: float(round(a)),
        "trunc": lambda a: float(math.trunc(a)),
        "isnan": lambda a: a != a,
        "isinf": lambda a: a in (INF, -INF),
        "logical_not": lambda a: not a,
        "bitwise_not": lambda a: ~a,
        "add": lambda a, b: a + b,
        "sub": lambda a, b: a - b,
        "mul": lambda a, b: a * b,
        "div": _divide,
        "pow": lambda a, b: a**b,
        "maximum": _larger,
        "minimum": _smaller,
        "eq": lambda a, b: a == b,
        "ne": lambda a, b: a != b,
        "lt": lambda a, b: a < b,
        "le": lambda a, b: a <= b,
        "gt": lambda a, b: a > b,
        "ge": lambda a, b: a >= b,
        "logical_and": lambda a, b: a and b,
        "logical_or": lambda a, b: a or b,
        "logical_xor": lambda a, b: a != b,
        "bitwise_and": lambda a, b: a & b,
        "bitwise_or": lambda a, b: a | b,
        "bitwise_xor": lambda a, b: a ^ b,
    }
)


def fold(op: str, dtype: DType, *values: Scalar) -> Scalar | None:
    """`op` on constants of `dtype`, rounded; None where it is not known or not defined there."""
    function = _FUNCTIONS.get(op)
    if function is None:
        return None
    if op == "pow" and (dtype.kind != "float" or values[0] <= 0):
        return None
    try:
        result = function(*(rounded(v, dtype) for v in values))
    except (ValueError, OverflowError):  # outside the function's domain: leave it to the program
        return None
    return result if isinstance(result, bool) else rounded(result, dtype)
