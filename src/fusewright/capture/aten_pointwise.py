"""Lowerings of ATen's elementwise arithmetic, comparisons and elementary functions.

Activations are in `aten_activation`. Formulas follow ATen's kernels; 16-bit floats are computed in
float32 and rounded once (ATen's opmath).
"""

import math
from collections.abc import Callable, Mapping
from functools import partial

from fusewright.ir import graph as g
from fusewright.ir.dtypes import BOOL, DType
from fusewright.ir.graph import Node

from .operands import (
    NotLowered,
    Operand,
    absolute,
    add,
    both,
    choose,
    convert,
    div,
    either,
    eq,
    exp,
    float_of,
    gt,
    isinf,
    isnan,
    log,
    log1p,
    lt,
    maximum,
    minimum,
    mul,
    neg,
    negate,
    pointwise,
    power,
    prepare,
    promote,
    rsqrt,
    sqrt,
    sub,
)

Lowering = Callable[..., Node | tuple[Node | None, ...]]

# ------------------------------------------------------------------------------------- arithmetic


def plus(a: Operand, b: Operand, alpha: float = 1) -> Node:
    """`a + alpha * b`; on bools the logical or."""
    dtype = promote(a, b)
    if dtype == BOOL:
        return either(*prepare(BOOL, a, b))
    return pointwise(lambda x, y: add(x, y if alpha == 1 else mul(y, alpha)), a, b, dtype=dtype)


def minus(a: Operand, b: Operand, alpha: float = 1) -> Node:
    """`a - alpha * b`."""
    return pointwise(lambda x, y: sub(x, y if alpha == 1 else mul(y, alpha)), a, b)


def reversed_minus(a: Operand, b: Operand, alpha: float = 1) -> Node:
    return minus(b, a, alpha)


def times(a: Operand, b: Operand) -> Node:
    """`a * b`; on bools the logical and."""
    dtype = promote(a, b)
    return both(*prepare(BOOL, a, b)) if dtype == BOOL else pointwise(mul, a, b, dtype=dtype)


def true_divide(a: Operand, b: Operand) -> Node:
    return pointwise(div, a, b, dtype=float_of(promote(a, b)))


def divide(a: Operand, b: Operand, *, rounding_mode: str | None = None) -> Node:
    """`aten.div` with its rounding modes; `floor` and `trunc` keep integers integers."""
    if rounding_mode is None:
        return true_divide(a, b)
    if rounding_mode == "floor":
        return pointwise(_binary("floor_div"), a, b)
    dtype = promote(a, b)
    if dtype.is_float:
        return pointwise(lambda x, y: g.unary("trunc", div(x, y)), a, b, dtype=dtype)
    return pointwise(_binary("trunc_div"), a, b, dtype=dtype)


def _binary(op: str) -> Callable[[Node, Node], Node]:
    return lambda a, b: g.binary(op, a, b)


def same_type(op: str, a: Operand, b: Operand) -> Node:
    """A binary op of the IR in the promoted type."""
    return pointwise(_binary(op), a, b)


def in_float(op: str, a: Operand, b: Operand) -> Node:
    """A binary op that integers enter as floats."""
    return pointwise(_binary(op), a, b, dtype=float_of(promote(a, b)))


def storage_type(op: str, a: Operand, b: Operand) -> Node:
    """A binary op on the representation of the type itself: never in a wider one."""
    return g.binary(op, *prepare(float_of(promote(a, b)), a, b))


def raise_to(base: Operand, exponent: Operand) -> Node:
    """`base ** exponent`, small constant exponents as ATen's `pow_tensor_scalar` spells them."""
    dtype = promote(base, exponent)
    if isinstance(exponent, int | float) and isinstance(base, Node):
        special = _CONSTANT_POWERS.get(float(exponent))
        if special is not None and (dtype.is_float or exponent in (0, 1, 2, 3)):
            return pointwise(special, base, dtype=_not_bool(dtype))
    if isinstance(base, int | float) and base == 1 and isinstance(exponent, Node):
        return g.const(1, dtype, exponent.shape)
    return pointwise(power, base, exponent, dtype=_not_bool(dtype))


def _not_bool(dtype: DType) -> DType:
    if dtype == BOOL:
        raise NotLowered("pow of bools")
    return dtype


_CONSTANT_POWERS: Mapping[float, Callable[[Node], Node]] = {
    0.0: lambda x: g.const(1, x.dtype, x.shape),
    1.0: lambda x: x,
    2.0: lambda x: mul(x, x),
    3.0: lambda x: mul(mul(x, x), x),
    0.5: sqrt,
    -0.5: rsqrt,
    -1.0: lambda x: div(1.0, x),
    -2.0: lambda x: div(1.0, mul(x, x)),
}


def compare(op: str, a: Operand, b: Operand) -> Node:
    """A comparison in the promoted type, giving bool."""
    return pointwise(_binary(op), a, b)


def logical(op: str, a: Operand, b: Operand) -> Node:
    """A logical op on truth values."""
    return g.binary(op, *prepare(BOOL, a, b))


def bitwise(op: str, a: Operand, b: Operand) -> Node:
    """A bitwise op; on bools the logical one."""
    dtype = promote(a, b)
    name = op.replace("bitwise", "logical") if dtype == BOOL else op
    return g.binary(name, *prepare(dtype, a, b))


def addcmul(x: Node, a: Node, b: Node, *, value: float = 1) -> Node:
    """`x + value * a * b`."""
    return pointwise(lambda x, a, b: add(x, mul(_scaled(a, value), b)), x, a, b)


def addcdiv(x: Node, a: Node, b: Node, *, value: float = 1) -> Node:
    """`x + value * a / b`."""
    return pointwise(lambda x, a, b: add(x, div(_scaled(a, value), b)), x, a, b)


def _scaled(x: Node, factor: float) -> Node:
    return x if factor == 1 else mul(x, factor)


def lerp(start: Node, end: Node, weight: Operand) -> Node:
    """Interpolation in the form that is exact at both ends (ATen's `lerp`)."""

    def formula(a: Node, b: Node, w: Node) -> Node:
        span = sub(b, a)
        near, far = add(a, mul(w, span)), sub(b, mul(sub(1.0, w), span))
        return choose(lt(absolute(w), 0.5), near, far)

    return pointwise(formula, start, end, weight, dtype=start.dtype)


def xlogy(a: Operand, b: Operand, function: Callable[[Node], Node] = log) -> Node:
    """`a * function(b)`, 0 where a is 0 unless b is NaN."""

    def formula(x: Node, y: Node) -> Node:
        product = choose(eq(x, 0.0), 0.0, mul(x, function(y)))
        return choose(isnan(y), y, product)

    return pointwise(formula, a, b, dtype=float_of(promote(a, b)))


def logaddexp(a: Node, b: Node) -> Node:
    """`log(exp(a) + exp(b))` without overflow; two equal infinities give themselves."""

    def formula(x: Node, y: Node) -> Node:
        top = maximum(x, y)
        soft = add(top, log1p(exp(neg(absolute(sub(x, y))))))
        return choose(both(isinf(x), eq(x, y)), x, soft)

    return pointwise(formula, a, b, dtype=float_of(promote(a, b)))


# ------------------------------------------------------------------------------------------ unary


def float_unary(op: str, x: Node) -> Node:
    """A float function; integers and bools enter as the default float type."""
    return pointwise(partial(g.unary, op), x, dtype=float_of(promote(x)))


def rounding(op: str, x: Node) -> Node:
    """floor, ceil, round, trunc: integers stay as they are."""
    return pointwise(partial(g.unary, op), x) if x.dtype.is_float else x


def round_decimals(x: Node, *, decimals: int = 0) -> Node:
    """Round to `decimals` digits the way ATen does: scale, round, unscale."""
    if not x.dtype.is_float:
        raise NotLowered("round with decimals of integers")
    if decimals == 0:
        return rounding("round", x)
    scale = 10.0 ** abs(decimals)
    up, down = (mul, div) if decimals > 0 else (div, mul)
    return pointwise(lambda v: down(g.unary("round", up(v, scale)), scale), x)


def number_unary(op: str, x: Node) -> Node:
    """neg, abs, sign, on numbers; bools have no neg, and abs and sign leave them."""
    if x.dtype == BOOL:
        return x
    return pointwise(partial(g.unary, op), x)


def float_test(op: str, x: Node) -> Node:
    """isnan, isinf: False for integers."""
    promote(x)
    return pointwise(partial(g.unary, op), x) if x.dtype.is_float else g.const(False, BOOL, x.shape)


def isfinite(x: Node) -> Node:
    """Neither NaN nor infinite."""
    return negate(either(float_test("isnan", x), float_test("isinf", x)))


def logical_not(x: Node) -> Node:
    return negate(convert(x, BOOL))


def bitwise_not(x: Node) -> Node:
    return negate(x) if x.dtype == BOOL else g.unary("bitwise_not", x)


def square(x: Node) -> Node:
    return raise_to(x, 2)


def frac(x: Node) -> Node:
    """The part behind the point, with the sign of x."""
    return pointwise(lambda v: sub(v, g.unary("trunc", v)), x)


def logit(x: Node, eps: float | None = None) -> Node:
    """`log(x / (1 - x))`, x first clamped to [eps, 1 - eps]."""

    def formula(v: Node) -> Node:
        v = v if eps is None else minimum(maximum(v, eps), 1.0 - eps)
        return log(div(v, sub(1.0, v)))

    return pointwise(formula, x, dtype=float_of(promote(x)))


def sinc(x: Node) -> Node:
    """`sin(pi x) / (pi x)`, 1 at 0."""

    def formula(v: Node) -> Node:
        w = mul(v, math.pi)
        return choose(eq(w, 0.0), 1.0, div(g.unary("sin", w), w))

    return pointwise(formula, x, dtype=float_of(promote(x)))


def nan_to_num(
    x: Node, nan: float | None = None, posinf: float | None = None, neginf: float | None = None
) -> Node:
    """Replace NaN and infinities; the defaults are 0 and the type's largest finite values."""
    if not x.dtype.is_float:
        return x
    top = largest_finite(x.dtype)

    def formula(v: Node) -> Node:
        out = choose(isnan(v), nan or 0.0, v)
        out = choose(eq(v, math.inf), top if posinf is None else posinf, out)
        return choose(eq(v, -math.inf), -top if neginf is None else neginf, out)

    return pointwise(formula, x)


def largest_finite(dtype: DType) -> float:
    """The largest finite value of a float type (IEEE 754; bfloat16 is a truncated binary32)."""
    return {
        "float16": 65504.0,
        "bfloat16": (2.0 - 2.0**-7) * 2.0**127,
        "float32": (2.0 - 2.0**-23) * 2.0**127,
        "float64": (2.0 - 2.0**-52) * 2.0**1023,
    }[dtype.name]


def signbit(x: Node) -> Node:
    """Whether the sign is negative; -0.0 counts as negative."""
    if not x.dtype.is_float:
        return compare("lt", x, 0)
    one = g.const(1.0, x.dtype, x.shape)
    return lt(g.binary("copysign", one, x), 0.0)


def heaviside(x: Node, values: Node) -> Node:
    """1 above zero, `values` at zero, else (NaN too) 0."""

    def formula(v: Node, at_zero: Node) -> Node:
        step = choose(gt(v, 0), g.const(1, v.dtype, v.shape), 0)
        return choose(eq(v, 0), at_zero, step)

    return pointwise(formula, x, values)


_FLOAT_UNARY = (
    *("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "asin"),
    *("acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "erfc", "erfinv"),
    *("lgamma", "digamma", "sigmoid", "sqrt", "rsqrt", "reciprocal"),
)
_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
_TENSOR_SCALAR = ("Tensor", "Scalar")


def _both_overloads(name: str, lowering: Lowering) -> dict[str, Lowering]:
    return {f"aten.{name}.{overload}": lowering for overload in _TENSOR_SCALAR}


def _comparisons() -> dict[str, Lowering]:
    return {
        f"aten.{op}.{overload}": partial(compare, op)
        for op in _COMPARISONS
        for overload in _TENSOR_SCALAR
    }


def _bitwise() -> dict[str, Lowering]:
    overloads = ("Tensor", "Scalar", "Scalar_Tensor")
    return {
        f"aten.bitwise_{op}.{overload}": partial(bitwise, f"bitwise_{op}")
        for op in ("and", "or", "xor")
        for overload in overloads
    }


def _shift(op: str, a: Operand, b: Operand) -> Node:
    return g.binary(op, *prepare(promote(a, b), a, b))


TABLE: Mapping[str, Lowering] = {
    **{f"aten.{op}.default": partial(float_unary, op) for op in _FLOAT_UNARY},
    **{f"aten.{op}.default": partial(rounding, op) for op in ("floor", "ceil", "round", "trunc")},
    **{f"aten.{op}.default": partial(number_unary, op) for op in ("neg", "abs", "sign")},
    **{f"aten.{op}.default": partial(float_test, op) for op in ("isnan", "isinf")},
    **_comparisons(),
    **_bitwise(),
    **{
        f"aten.logical_{op}.default": partial(logical, f"logical_{op}")
        for op in ("and", "or", "xor")
    },
    **_both_overloads("add", plus),
    **_both_overloads("sub", minus),
    **_both_overloads("rsub", reversed_minus),
    **_both_overloads("mul", times),
    **_both_overloads("div", true_divide),
    "aten.div.Tensor_mode": divide,
    "aten.div.Scalar_mode": divide,
    **_both_overloads("remainder", partial(same_type, "remainder")),
    "aten.remainder.Scalar_Tensor": partial(same_type, "remainder"),
    **_both_overloads("fmod", partial(same_type, "fmod")),
    "aten.floor_divide.default": partial(same_type, "floor_div"),
    "aten.floor_divide.Scalar": partial(same_type, "floor_div"),
    "aten.pow.Tensor_Scalar": raise_to,
    "aten.pow.Tensor_Tensor": raise_to,
    "aten.pow.Scalar": raise_to,
    "aten.maximum.default": partial(same_type, "maximum"),
    "aten.minimum.default": partial(same_type, "minimum"),
    "aten.fmax.default": partial(same_type, "fmax"),
    "aten.fmin.default": partial(same_type, "fmin"),
    "aten.atan2.default": partial(in_float, "atan2"),
    "aten.hypot.default": partial(same_type, "hypot"),
    **_both_overloads("copysign", partial(storage_type, "copysign")),
    "aten.nextafter.default": partial(storage_type, "nextafter"),
    "aten.logical_not.default": logical_not,
    "aten.bitwise_not.default": bitwise_not,
    **{
        f"aten.bitwise_{side}_shift.{o}": partial(_shift, f"shift_{side}")
        for side in ("left", "right")
        for o in ("Tensor", "Tensor_Scalar", "Scalar_Tensor")
    },
    **_both_overloads("__lshift__", partial(_shift, "shift_left")),
    **_both_overloads("__rshift__", partial(_shift, "shift_right")),
    "aten.round.decimals": round_decimals,
    "aten.isfinite.default": isfinite,
    "aten.sgn.default": partial(number_unary, "sign"),
    "aten.square.default": square,
    "aten.frac.default": frac,
    "aten.logit.default": logit,
    "aten.sinc.default": sinc,
    "aten.signbit.default": signbit,
    "aten.heaviside.default": heaviside,
    "aten.nan_to_num.default": nan_to_num,
    "aten.addcmul.default": addcmul,
    "aten.addcdiv.default": addcdiv,
    "aten.lerp.Scalar": lerp,
    "aten.lerp.Tensor": lerp,
    **{f"aten.xlogy.{o}": xlogy for o in ("Tensor", "Scalar_Self", "Scalar_Other")},
    "aten.special_xlog1py.default": partial(xlogy, function=log1p),
    "aten.logaddexp.default": logaddexp,
}
