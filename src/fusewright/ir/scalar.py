"""The scalar operations both IR levels share: name, arity, result type and mathematical facts.

How an operation is spelled in C lives in `emit`; how it is evaluated lives in `run.scalars`.
Facts are what rewrites may rely on; an absent fact means "not known", never "does not hold".
"""

from dataclasses import dataclass
from typing import Literal

from .dtypes import BOOL, DType

Monotone = Literal["increasing", "decreasing"]
INF = float("inf")


@dataclass(frozen=True, slots=True)
class ScalarOp:
    """One operation on scalars.

    `result` is the result type ("same" as the operands or "bool"); `on` the operand kinds admitted;
    `monotone` holds on the whole real line (for the first operand); `low`/`high` bound the result
    for finite arguments; `commutative`, `idempotent` as in algebra; `cost` counts
    float operations for the roofline (1 for an add, about 10 for a transcendental).
    """

    name: str
    arity: int
    result: Literal["same", "bool"] = "same"
    on: tuple[str, ...] = ("float",)
    monotone: Monotone | None = None
    low: float = -INF
    high: float = INF
    commutative: bool = False
    idempotent: bool = False
    cost: int = 1


NUMBER = ("int", "float")
ANY = ("bool", "int", "float")


def _float(name: str, cost: int = 10, **facts: object) -> ScalarOp:
    return ScalarOp(name, 1, cost=cost, **facts)  # type: ignore[arg-type]


UNARY = (
    ScalarOp("neg", 1, on=NUMBER, monotone="decreasing"),
    ScalarOp("abs", 1, on=NUMBER, low=0.0, idempotent=True),
    ScalarOp("sign", 1, on=NUMBER, monotone="increasing", low=-1.0, high=1.0, idempotent=True),
    _float("reciprocal", 4),
    _float("sqrt", 4, low=0.0),
    _float("rsqrt", 4, low=0.0),
    _float("exp", monotone="increasing", low=0.0),
    _float("exp2", monotone="increasing", low=0.0),
    _float("expm1", monotone="increasing", low=-1.0),
    _float("log"),
    _float("log2"),
    _float("log10"),
    _float("log1p"),
    _float("sin", low=-1.0, high=1.0),
    _float("cos", low=-1.0, high=1.0),
    _float("tan"),
    _float("asin"),
    _float("acos", low=0.0),
    _float("atan", monotone="increasing", low=-1.5707964, high=1.5707964),
    _float("sinh", monotone="increasing"),
    _float("cosh", low=1.0),
    _float("tanh", monotone="increasing", low=-1.0, high=1.0),
    _float("asinh", monotone="increasing"),
    _float("acosh", low=0.0),
    _float("atanh"),
    _float("erf", monotone="increasing", low=-1.0, high=1.0),
    _float("erfc", monotone="decreasing", low=0.0, high=2.0),
    _float("erfinv"),
    _float("lgamma", 30),
    _float("digamma", 30),
    _float("sigmoid", monotone="increasing", low=0.0, high=1.0),
    _float("floor", 1, monotone="increasing", idempotent=True),
    _float("ceil", 1, monotone="increasing", idempotent=True),
    _float("round", 1, monotone="increasing", idempotent=True),
    _float("trunc", 1, monotone="increasing", idempotent=True),
    ScalarOp("isnan", 1, result="bool", on=("float",)),
    ScalarOp("isinf", 1, result="bool", on=("float",)),
    ScalarOp("logical_not", 1, result="bool", on=("bool",)),
    ScalarOp("bitwise_not", 1, on=("int",)),
)

BINARY = (
    ScalarOp("add", 2, on=NUMBER, monotone="increasing", commutative=True),
    ScalarOp("sub", 2, on=NUMBER, monotone="increasing"),
    ScalarOp("mul", 2, on=NUMBER, commutative=True),
    ScalarOp("div", 2, cost=4),
    ScalarOp("floor_div", 2, on=NUMBER, cost=6),
    ScalarOp("trunc_div", 2, on=("int",), cost=6),
    ScalarOp("fmod", 2, on=NUMBER, cost=10),
    ScalarOp("remainder", 2, on=NUMBER, cost=10),
    ScalarOp("pow", 2, on=NUMBER, cost=20),
    ScalarOp("atan2", 2, cost=15),
    ScalarOp("hypot", 2, cost=8, low=0.0),
    ScalarOp("copysign", 2),
    ScalarOp("nextafter", 2, cost=4),
    # NaN in either operand gives NaN, as torch.maximum does.
    ScalarOp("maximum", 2, on=ANY, monotone="increasing", commutative=True),
    ScalarOp("minimum", 2, on=ANY, monotone="increasing", commutative=True),
    # NaN in one operand gives the other, as torch.fmax does.
    ScalarOp("fmax", 2, commutative=True),
    ScalarOp("fmin", 2, commutative=True),
    ScalarOp("eq", 2, result="bool", on=ANY, commutative=True),
    ScalarOp("ne", 2, result="bool", on=ANY, commutative=True),
    ScalarOp("lt", 2, result="bool", on=ANY),
    ScalarOp("le", 2, result="bool", on=ANY),
    ScalarOp("gt", 2, result="bool", on=ANY),
    ScalarOp("ge", 2, result="bool", on=ANY),
    ScalarOp("logical_and", 2, result="bool", on=("bool",), commutative=True),
    ScalarOp("logical_or", 2, result="bool", on=("bool",), commutative=True),
    ScalarOp("logical_xor", 2, result="bool", on=("bool",), commutative=True),
    ScalarOp("bitwise_and", 2, on=("int",), commutative=True),
    ScalarOp("bitwise_or", 2, on=("int",), commutative=True),
    ScalarOp("bitwise_xor", 2, on=("int",), commutative=True),
    ScalarOp("shift_left", 2, on=("int",)),
    ScalarOp("shift_right", 2, on=("int",)),
)

OPS = {op.name: op for op in (*UNARY, *BINARY)}


@dataclass(frozen=True, slots=True)
class Reduction:
    """One way to combine many values: its identity element and the binary op that folds two."""

    name: str
    combine: str
    on: tuple[str, ...]
    identity: float | int | bool


REDUCTIONS = {
    r.name: r
    for r in (
        Reduction("sum", "add", NUMBER, 0),
        Reduction("prod", "mul", NUMBER, 1),
        Reduction("max", "maximum", ANY, -INF),
        Reduction("min", "minimum", ANY, INF),
        Reduction("any", "logical_or", ("bool",), False),
        Reduction("all", "logical_and", ("bool",), True),
    )
}


# The kinds of running folds and the operand kinds they admit.
SCANS = {
    **{op: REDUCTIONS[op].on for op in ("sum", "prod", "max", "min")},
    "logsumexp": ("float",),
    "argmax": ANY,
    "argmin": ANY,
}


def identity(kind: str, dtype: DType) -> float | int | bool:
    """The value `z` with `combine(z, x) == x` for every x of `dtype`."""
    kind = {"argmax": "max", "argmin": "min", "logsumexp": "max"}.get(kind, kind)
    value = REDUCTIONS[kind].identity
    if kind in ("any", "all"):
        return value
    if dtype.kind == "bool":
        return kind == "min"
    if dtype.kind == "int" and value in (INF, -INF):
        bits = dtype.bits - (1 if dtype.signed else 0)
        return 2**bits - 1 if value > 0 else (-(2**bits) if dtype.signed else 0)
    return float(value) if dtype.is_float else int(value)


def result_dtype(op: ScalarOp, dtype: DType) -> DType:
    """The type `op` gives for operands of `dtype`."""
    return BOOL if op.result == "bool" else dtype
