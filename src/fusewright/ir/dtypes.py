"""Element types and the types they are computed in. Their C spelling lives in `emit`, not here."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["bool", "int", "float", "opaque"]


@dataclass(frozen=True, slots=True)
class DType:
    """An element type: `name` as torch spells it, `bits` of storage, `kind`, unit roundoff `eps`.

    Kind "opaque" is a type the IR cannot compute with (complex, float8, uint16, ...): only inputs,
    outputs and Extern calls have it.
    """

    name: str
    bits: int
    kind: Kind
    signed: bool = True
    eps: float = 0.0

    @property
    def bytes(self) -> int:
        """Storage of one element in bytes."""
        return (self.bits + 7) // 8

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    def __repr__(self) -> str:
        return self.name


BOOL = DType("bool", 8, "bool", signed=False)
UINT8 = DType("uint8", 8, "int", signed=False)
INT8 = DType("int8", 8, "int")
INT16 = DType("int16", 16, "int")
INT32 = DType("int32", 32, "int")
INT64 = DType("int64", 64, "int")
FLOAT16 = DType("float16", 16, "float", eps=2.0**-11)
BFLOAT16 = DType("bfloat16", 16, "float", eps=2.0**-8)
FLOAT32 = DType("float32", 32, "float", eps=2.0**-24)
FLOAT64 = DType("float64", 64, "float", eps=2.0**-53)

ALL = (BOOL, UINT8, INT8, INT16, INT32, INT64, FLOAT16, BFLOAT16, FLOAT32, FLOAT64)


def by_name(name: str) -> DType | None:
    """The type torch calls `torch.<name>`, or None when the IR cannot compute with it."""
    return next((d for d in ALL if d.name == name), None)


def opaque(name: str, bits: int) -> DType:
    """A type torch has and the IR does not, passed from one Extern call to the next."""
    return DType(name, bits, "opaque", signed=False)


def compute_type(dtype: DType) -> DType:
    """The type scalar arithmetic on `dtype` happens in: PyTorch's `opmath_t`."""
    return FLOAT32 if dtype in (FLOAT16, BFLOAT16) else dtype


def sum_type(dtype: DType) -> DType:
    """The accumulator of a sum over `dtype` (float64 stays, small integers widen as in PyTorch)."""
    if dtype.kind in ("bool", "int"):
        return INT64
    return compute_type(dtype)
