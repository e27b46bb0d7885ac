"""What the scalar operations of `ir.scalar` mean, said in torch: the tables of the interpreter.

Only single operations on whole tensors live here; walking a graph or a kernel is `interpret`'s.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from fusewright.errors import IRError
from fusewright.ir.dtypes import DType, by_name, compute_type
from fusewright.ir.scalar import OPS, identity


def _floor_div(a: Tensor, b: Tensor) -> Tensor:
    return torch.div(a, b, rounding_mode="floor")


def _trunc_div(a: Tensor, b: Tensor) -> Tensor:
    return torch.div(a, b, rounding_mode="trunc")


# Operations that torch spells otherwise than `ir.scalar`; all others are torch.<name>.
_RENAMED: Mapping[str, Callable[..., Tensor]] = MappingProxyType(
    {
        "floor_div": _floor_div,
        "trunc_div": _trunc_div,
        "shift_left": torch.bitwise_left_shift,
        "shift_right": torch.bitwise_right_shift,
    }
)
# Neighbouring values and sign bits belong to the storage type, not to the type arithmetic uses.
_IN_STORAGE_TYPE = frozenset({"nextafter", "copysign"})


def torch_dtype(dtype: DType) -> torch.dtype:
    """The torch type of that name."""
    return getattr(torch, dtype.name)


def ir_dtype(dtype: torch.dtype) -> DType:
    """The IR's type for a torch type. Raises IRError when there is none (complex, uint16, ...)."""
    found = by_name(str(dtype).removeprefix("torch."))
    if found is None:
        raise IRError(f"{dtype} has no counterpart in the IR")
    return found


def apply(op: str, *args: Tensor) -> Tensor:
    """`op(args)` elementwise; 16-bit floats are computed in float32 and rounded once, as in eager.

    Operands have one dtype; the result has it too, or is bool.
    """
    if op not in OPS or OPS[op].arity != len(args):
        raise IRError(f"there is no scalar operation {op!r} with {len(args)} operands")
    function = _RENAMED.get(op) or getattr(torch, op)
    storage = args[0].dtype
    wide = storage if op in _IN_STORAGE_TYPE else torch_dtype(compute_type(ir_dtype(storage)))
    out = function(*(x.to(wide) for x in args))
    return out if out.dtype == torch.bool else out.to(storage)


def fold(op: str, x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """`x` folded with sum, prod, max, min, any or all over `axes`, which vanish; same dtype.

    16-bit floats accumulate in float32. Raises IRError for max and min over nothing.
    """
    storage = x.dtype
    x = x.to(torch_dtype(compute_type(ir_dtype(storage))))
    if op in ("max", "min"):
        if math.prod(x.shape[a] for a in axes) == 0 and math.prod(_kept(x.shape, axes)):
            raise IRError(f"{op} over an empty axis has no value")
        return (x.amax(axes) if op == "max" else x.amin(axes)).to(storage)
    if op == "sum":
        return x.sum(axes, dtype=x.dtype).to(storage)
    for a in sorted(axes, reverse=True):
        x = x.prod(a, dtype=x.dtype) if op == "prod" else getattr(x, op)(a)
    return x.to(storage)


def _kept(shape: torch.Size, axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for k, n in enumerate(shape) if k not in axes)


def arg_fold(op: str, x: Tensor, axis: int) -> Tensor:
    """int64 positions along `axis` of the extreme values: the first NaN, else the first tie."""
    if x.dtype == torch.bool:
        x = x.to(torch.uint8)
    return x.argmax(axis) if op == "argmax" else x.argmin(axis)


def scan(op: str, x: Tensor, axis: int, reverse: bool, exclusive: bool) -> Tensor:
    """The running fold `op` of `ir.scalar.SCANS` along `axis`, as `ir.nodes.Scan` says.

    16-bit floats accumulate in float32; positions are int64.
    """
    storage = x.dtype
    x = x.flip(axis) if reverse else x
    if op in ("argmax", "argmin"):
        wide = x.to(torch.uint8) if storage == torch.bool else x
        at = (wide.cummax(axis) if op == "argmax" else wide.cummin(axis)).indices
        return (x.shape[axis] - 1 - at).flip(axis) if reverse else at
    out = _running(op, x.to(torch_dtype(compute_type(ir_dtype(storage)))), axis)
    if exclusive:
        start = identity(op, ir_dtype(storage))
        first = torch.full_like(out.narrow(axis, 0, 1), start)
        out = torch.cat((first, out.narrow(axis, 0, x.shape[axis] - 1)), axis)
    return (out.flip(axis) if reverse else out).to(storage)


def _running(op: str, x: Tensor, axis: int) -> Tensor:
    match op:
        case "sum":
            return x.cumsum(axis, dtype=x.dtype)
        case "prod":
            return x.cumprod(axis, dtype=x.dtype)
        case "logsumexp":
            return x.logcumsumexp(axis)
        case _:
            wide = x.to(torch.uint8) if x.dtype == torch.bool else x
            return getattr(wide, f"cum{op}")(axis).values.to(x.dtype)
