"""How each scalar operation of `ir.scalar` and each conversion is spelled in C++ and in CUDA C++.

Semantics are PyTorch's: NaN-propagating maximum, Python-style floor_div and remainder, halves
rounded to even. What is not one C operator or call is a helper `fw_...` of the skeletons, which
documents it. Nothing about loops, loads or statements lives here.
"""

from collections.abc import Sequence
from functools import cache
from typing import Literal

from fusewright.errors import IRError
from fusewright.ir.dtypes import BFLOAT16, BOOL, FLOAT16, FLOAT32, FLOAT64, INT64, UINT8, DType

from . import vecmath
from .ctext import (
    ADD,
    BITAND,
    BITOR,
    BITXOR,
    EQUALITY,
    LAND,
    LOR,
    MUL,
    RELATION,
    Text,
    c_type,
    call,
    infix,
    literal,
    prefix,
)

DialectName = Literal["cpu", "cuda"]
HALVES = (FLOAT16, BFLOAT16)

_INFIX = {
    "add": ("+", ADD),
    "sub": ("-", ADD),
    "mul": ("*", MUL),
    "div": ("/", MUL),
    "eq": ("==", EQUALITY),
    "ne": ("!=", EQUALITY),
    "lt": ("<", RELATION),
    "le": ("<=", RELATION),
    "gt": (">", RELATION),
    "ge": (">=", RELATION),
    "logical_and": ("&&", LAND),
    "logical_or": ("||", LOR),
    "logical_xor": ("!=", EQUALITY),
    "bitwise_and": ("&", BITAND),
    "bitwise_or": ("|", BITOR),
    "bitwise_xor": ("^", BITXOR),
}

# Operations that a helper of the skeletons defines for every number type, in both dialects.
_HELPERS = (
    *("sign", "floor_div", "trunc_div", "fmod", "remainder", "maximum", "minimum"),
    *("fmax", "fmin", "shift_left", "shift_right"),
)

# Float operations that are one call of the C library: CUDA's name without its `f`, and std::'s.
_LIBRARY = {
    "abs": "fabs",
    "round": "rint",
    **{
        op: op
        for op in (
            *("sqrt", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos"),
            *("tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh"),
            *("erf", "erfc", "lgamma", "floor", "ceil", "trunc", "pow", "atan2", "hypot"),
            *("copysign", "nextafter"),
        )
    },
}


# Functions that have a short form on CUDA, `short_...`, for results that are rounded to 16 bits.
SHORT = ("exp", "expm1", "log1p")
# So has the sum 1 + erf(x), as half of GELU is: below 0 erf itself keeps nothing of it.
ONE_PLUS_ERF = "one_plus_erf"


@cache
def vecmath_names() -> frozenset[str]:
    """The functions that skeletons/vecmath.hpp vectorises (its text never changes in a process)."""
    text = vecmath.HEADER.read_text(encoding="utf-8")
    return frozenset(block.name for block in vecmath.parse_blocks(text))


def compute_c_type(dtype: DType) -> DType:
    """The type whose C operators stand for arithmetic on `dtype`: float for the 16-bit floats."""
    return FLOAT32 if dtype in HALVES else dtype


def apply_op(
    op: str, args: Sequence[Text], operand: DType, result: DType, dialect: DialectName
) -> Text:
    """`op(args)`; all args have the type `operand`.

    Arithmetic on 16-bit floats is done in float32 and rounded. Raises IRError for an unknown op.
    """
    if operand in HALVES:
        wide = [convert(a, operand, FLOAT32, dialect) for a in args]
        out = apply_op(op, wide, FLOAT32, FLOAT32 if result == operand else result, dialect)
        return convert(out, FLOAT32, result, dialect) if result == operand else out
    if operand == BOOL and op in ("maximum", "minimum"):
        op = "logical_or" if op == "maximum" else "logical_and"
    if op in _INFIX:
        out = infix(*_INFIX[op], *args)
        return _narrowed(out, result, dialect) if op in ("add", "sub", "mul") else out
    if op in _HELPERS:
        kind = f"<{c_type(operand, dialect)}>" if operand.kind == "int" else ""
        return call(f"fw_{op}{kind}", *args)
    return _special(op, args, operand, dialect)


def _special(op: str, args: Sequence[Text], operand: DType, dialect: DialectName) -> Text:
    match op:
        case "neg":
            return _narrowed(prefix("-", args[0]), operand, dialect)
        case "bitwise_not":
            return _narrowed(prefix("~", args[0]), operand, dialect)
        case "logical_not":
            return prefix("!", args[0])
        case "reciprocal":
            return infix("/", MUL, literal(1.0, operand), args[0])
        case "abs" if operand.kind == "int":
            return call(f"fw_abs_int<{c_type(operand, dialect)}>", *args)
        case "pow" if operand.kind == "int":
            return call(f"fw_pow_int<{c_type(operand, dialect)}>", *args)
        case "isnan":
            return call("fw_isnan", *args)
        case "isinf":
            return call("fw_isinf", *args)
        case _:
            return _float_call(op, args, operand, dialect)


def _float_call(op: str, args: Sequence[Text], operand: DType, dialect: DialectName) -> Text:
    if dialect == "cpu" and op in vecmath_names():
        return call(f"fw_{op}", *args)
    if dialect == "cuda" and (op in _LIBRARY or op in ("rsqrt", "erfinv")):
        return call(_LIBRARY.get(op, op) + ("f" if operand == FLOAT32 else ""), *args)
    if dialect == "cpu" and op in _LIBRARY:
        return call(f"std::{_LIBRARY[op]}", *args)
    short = op.removeprefix("short_") in (*SHORT, ONE_PLUS_ERF)
    if short or op in ("sigmoid", "rsqrt", "erfinv", "digamma"):
        return call(f"fw_{op}", *args)
    raise IRError(f"no C spelling of the operation {op} on {operand.name}: add it to emit/spell.py")


def _narrowed(x: Text, dtype: DType, dialect: DialectName) -> Text:
    """C computes small integers as int: cut the result back to its type."""
    if dtype.kind == "int" and dtype.bits < 32:
        return prefix(f"({c_type(dtype, dialect)})", x)
    return x


def convert(x: Text, source: DType, target: DType, dialect: DialectName) -> Text:
    """`x` converted as `Tensor.to` does: to nearest even, to integers toward 0, to bool `!= 0`."""
    if source == target:
        return x
    if source in HALVES:
        as_float = call("fw_to_float", x)
        return as_float if target == FLOAT32 else convert(as_float, FLOAT32, target, dialect)
    if target in HALVES:
        as_float = x if source == FLOAT32 else prefix("(float)", x)
        return call(f"fw_to_{target.name}", as_float)
    if target == BOOL:
        return infix("!=", EQUALITY, x, literal(0, source))
    if target == UINT8 and source in (FLOAT32, FLOAT64):
        # As c10::convert does: through int64, so that negative values wrap.
        x = prefix(f"({c_type(INT64, dialect)})", x)
    elif target.kind == "int" and target.bits < 32 and source.is_float:
        x = prefix("(int)", x)
    return prefix(f"({c_type(target, dialect)})", x)
