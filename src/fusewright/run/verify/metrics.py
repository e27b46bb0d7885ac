"""How far one tensor is from another, both measured against float64: pure functions on tensors.

Three measures, each relative and each taken over the elements that are finite in every reference:

- `norm`: ||x - o||_2 / ||o||_2, the measure that the accuracy classes are defined in;
- `slice`: the same for every index of every axis alone (each row, each channel, ...), the worst of
  them, so that an error in a part that is small in norm cannot hide;
- `component`: max |x - o| / (|o| + rms(o)), so that a single wrong element cannot hide.

A candidate may be 1.25 times as far from float64 as the reference is, or as the reference moves
when every value in it is randomly rounded (then the computation does not determine the result any
better), or as far as a fixed floor of the dtype, whichever is largest.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

# What a candidate may add to the reference's own error, by docs/design.md.
NORM_FACTOR = 1.25
# Slices and components are maxima over many values, whose spread is wider than that of a norm: the
# largest of 1e9 normal deviates is about 6 standard deviations.
MAXIMUM_FACTOR = 5.0
MAXIMUM_FLOOR = 10.0
# 5e-7 for float32 is 8.4 units of roundoff; half dtypes get the roundoff of the stored result.
_FLOORS = {
    torch.float64: 5e-7 * 2.0**-29 * 8,
    torch.float32: 5e-7,
    torch.bfloat16: 2.0**-8,
    torch.float16: 2.0**-11,
}
UNIT_ROUNDOFF = {
    torch.float64: 2.0**-53,
    torch.float32: 2.0**-24,
    torch.bfloat16: 2.0**-8,
    torch.float16: 2.0**-11,
}
_CHUNK = 1 << 24
_TINY = 1e-300
# A slice that is this much smaller than the whole counts as if it were this large.
_SMALL_SLICE = 1e-6


@dataclass(frozen=True, slots=True)
class Distance:
    """The three measures of one tensor against the oracle; math.inf where patterns differ."""

    norm: float
    slice: float
    component: float
    where: tuple[int, ...] = ()

    def at_least(self, other: "Distance") -> "Distance":
        return Distance(
            max(self.norm, other.norm),
            max(self.slice, other.slice),
            max(self.component, other.component),
        )


ZERO = Distance(0.0, 0.0, 0.0)


def floor_of(dtype: torch.dtype) -> float:
    """Relative error that is always allowed in the class of `dtype`."""
    return _FLOORS[real_dtype(dtype)]


def real_dtype(dtype: torch.dtype) -> torch.dtype:
    complex_parts = {torch.complex64: torch.float32, torch.complex128: torch.float64}
    return complex_parts.get(dtype, dtype)


def bound_of(allowed: Distance, floor: float, count: int, slack: float = 1.0) -> Distance:
    """The largest distances that are accepted, from those of the allowed references.

    count: elements of the tensor. The norm of few random errors says little about that of few
    others: it scatters by about 1 / sqrt(count), of which three are allowed for.
    slack: multiplies all bounds, for quantities that no accuracy class is promised for.
    """
    norm = NORM_FACTOR * (1 + 3 / math.sqrt(max(count, 1)))
    return Distance(
        slack * max(norm * allowed.norm, floor),
        slack * max(MAXIMUM_FACTOR * allowed.slice, MAXIMUM_FLOOR * floor),
        slack * max(MAXIMUM_FACTOR * allowed.component, MAXIMUM_FLOOR * floor),
    )


def within(distance: Distance, bound: Distance) -> bool:
    return (
        distance.norm <= bound.norm
        and distance.slice <= bound.slice
        and distance.component <= bound.component
    )


def as_real(tensor: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def pattern_mismatches(
    candidate: torch.Tensor, eager: torch.Tensor, oracle: torch.Tensor
) -> tuple[int, tuple[int, ...]]:
    """(how many, an example's index) of elements whose NaN or Inf differs from both references.

    Where eager and the oracle disagree about finiteness (an overflow of the narrower dtype), the
    candidate may follow either.
    """
    finite = eager.isfinite() & oracle.isfinite()
    wrong = finite & ~candidate.isfinite()
    wrong |= eager.isnan() & oracle.isnan() & ~candidate.isnan()
    infinite = eager.isinf() & oracle.isinf() & (eager == oracle.to(eager.dtype))
    wrong |= infinite & (candidate != eager)
    count = int(wrong.sum())
    return count, tuple(wrong.nonzero()[0].tolist()) if count else ()


class Accumulator:
    """Distance of a tensor from the oracle, fed in pieces along axis 0 (float64 inside).

    shape: of the whole tensor. rms: root mean square of the oracle's valid elements, or of the
    reference's; where that is zero, the magnitude that an error shall be compared with.
    """

    def __init__(self, shape: Sequence[int], rms: float, device: torch.device) -> None:
        self.shape = tuple(shape) or (1,)
        self.rms = rms or _TINY
        # An axis whose slices are single elements is left out: components are measured anyway.
        total = math.prod(self.shape)
        self._axes = [d for d, extent in enumerate(self.shape) if 1 < extent < total]
        self._sums = {
            d: torch.zeros(3, self.shape[d], dtype=torch.float64, device=device) for d in self._axes
        }
        self._error = self._square = 0.0
        self._count = 0
        self._component, self._where = 0.0, ()

    def add(
        self, tensor: torch.Tensor, oracle: torch.Tensor, valid: torch.Tensor, first: int = 0
    ) -> None:
        """Take in rows `first`, `first` + 1, ...; only elements where `valid` count."""
        pieces = (t.reshape(-1, *self.shape[1:]) for t in (tensor, oracle, valid))
        for start, (t, o, v) in _chunks(*pieces):
            wide = _masked(o, v)
            error = (_masked(t, v) - wide).abs_()
            self._add_component(error, wide, first + start)
            self._add_sums(error.square_(), wide.square_(), v, first + start)

    def _add_sums(
        self, error: torch.Tensor, square: torch.Tensor, valid: torch.Tensor, first: int
    ) -> None:
        self._error += float(error.sum())
        self._square += float(square.sum())
        self._count += int(valid.sum())
        for d in self._axes:
            others = [k for k in range(error.ndim) if k != d]
            sums = torch.stack([x.sum(others) for x in (error, square, valid.double())])
            where = slice(first, first + error.shape[0]) if d == 0 else slice(None)
            self._sums[d][:, where] += sums

    def _add_component(self, error: torch.Tensor, wide: torch.Tensor, first: int) -> None:
        if not error.numel():
            return
        ratio = error / (wide.abs() + self.rms)
        flat = int(ratio.argmax())
        if (value := float(ratio.reshape(-1)[flat])) > self._component:
            index = torch.unravel_index(torch.tensor(flat), ratio.shape)
            self._component = value
            self._where = (first + int(index[0]), *(int(i) for i in index[1:]))

    def result(self) -> Distance:
        scale = math.sqrt(self._square) or self.rms * math.sqrt(max(self._count, 1))
        norm = math.sqrt(self._error) / scale
        slices = [_worst_slice(s[0], s[1], s[2], self.rms) for s in self._sums.values()]
        return Distance(norm, max([norm, *slices]), self._component, self._where)


def _worst_slice(
    errors: torch.Tensor, squares: torch.Tensor, counts: torch.Tensor, rms: float
) -> float:
    least = (_SMALL_SLICE * rms) ** 2 * counts.clamp(min=1)
    return math.sqrt(float((errors / torch.maximum(squares, least).clamp(min=_TINY)).max()))


def _chunks(*tensors: torch.Tensor) -> Iterator[tuple[int, list[torch.Tensor]]]:
    """(first row, pieces) along axis 0, so that a large tensor needs little extra memory."""
    rows = tensors[0].shape[0]
    step = max(1, _CHUNK // max(tensors[0].numel() // max(rows, 1), 1))
    for start in range(0, rows, step):
        yield start, [t[start : start + step] for t in tensors]


def _masked(tensor: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    return torch.where(valid, tensor.double(), 0.0)


def root_mean_square(tensor: torch.Tensor, valid: torch.Tensor) -> float:
    """Over the elements where `valid`; 0.0 where there is none."""
    square, count = 0.0, 0
    rows = [t.reshape(t.shape or (1,)) for t in (tensor, valid)]
    for _, (t, v) in _chunks(*rows):
        square += float(_masked(t, v).square_().sum())
        count += int(v.sum())
    return math.sqrt(square / count) if count else 0.0


def accuracy_class(norm: float, eager: float, float32_bound: float, tf32_bound: float) -> str:
    """The name of the accuracy class of a float32 output with relative L2 error `norm`."""
    if norm <= eager:
        return "more accurate than the reference"
    if norm <= float32_bound:
        return "float32 class"
    if norm <= tf32_bound:
        return "TF32 class"
    return "half class" if norm <= 8 * tf32_bound else "below half class"
