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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from fusewright.run.verify import tails

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
UNIT_BYTES = {torch.float64: 8, torch.float32: 4, torch.bfloat16: 2, torch.float16: 2}
# What is so much nearer than TF32's arithmetic is not made by it.
_TF32_SPAN = 32
_CPU_CHUNK, _GPU_CHUNK = 1 << 18, 1 << 24
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


ZERO = Distance(0.0, 0.0, 0.0)


def combined(how: Callable[..., float], *distances: Distance) -> Distance:
    """`how` of all norms, of all slices and of all components."""
    return Distance(
        how(*(d.norm for d in distances)),
        how(*(d.slice for d in distances)),
        how(*(d.component for d in distances)),
    )


def floor_of(dtype: torch.dtype) -> float:
    """Relative error that is always allowed in the class of `dtype`."""
    return _FLOORS[real_dtype(dtype)]


def real_dtype(dtype: torch.dtype) -> torch.dtype:
    complex_parts = {torch.complex64: torch.float32, torch.complex128: torch.float64}
    return complex_parts.get(dtype, dtype)


def bound_of(allowed: Distance, floor: float, shape: Sequence[int], slack: float = 1.0) -> Distance:
    """The largest distances that are accepted, from those of the allowed references.

    The norm of n independent random errors says little about that of n others when n is small: it
    scatters by about 1 / sqrt(n), of which three are allowed for. Errors may be shared by a whole
    row or channel (one rounded mean moves all of it), so n is the extent of the shortest axis of
    `shape` that is longer than one.
    slack: multiplies all bounds, for quantities that no accuracy class is promised for.
    """
    independent = min((extent for extent in shape if extent > 1), default=1)
    norm = NORM_FACTOR * (1 + 3 / math.sqrt(independent))
    return Distance(
        slack * max(norm * allowed.norm, floor),
        slack * max(MAXIMUM_FACTOR * allowed.slice, MAXIMUM_FLOOR * floor),
        slack * max(MAXIMUM_FACTOR * allowed.component, MAXIMUM_FLOOR * floor),
    )


def bound_of_draws(draws: Sequence[Distance], slack: float = 1.0) -> Distance:
    """The largest distances accepted by what rounding did in many draws: less is left to chance."""
    return _scaled_draw(combined(max, ZERO, *draws), slack)


def doubt_of(draws: Sequence[Distance], bound: Distance, slack: float = 1.0) -> Distance:
    """Beyond this an error is not rounding's, though it be as rare as one draw in a million;
    between `bound` and this nothing can be told. A few draws leave nothing open."""
    if len(draws) < tails.FEWEST:
        return bound
    limit = combined(lambda *values: tails.limit(values), *draws)
    return combined(max, bound, _scaled_draw(limit, slack))


def _scaled_draw(draw: Distance, slack: float) -> Distance:
    """How much further than a draw of random rounding an error may be."""
    maximum = slack * MAXIMUM_FACTOR / 2
    return Distance(slack * NORM_FACTOR * draw.norm, maximum * draw.slice, maximum * draw.component)


def scaled(distance: Distance, factor: float) -> Distance:
    return combined(lambda value: factor * value, distance)


def within(distance: Distance, bound: Distance) -> bool:
    return (
        distance.norm <= bound.norm
        and distance.slice <= bound.slice
        and distance.component <= bound.component
    )


def largest_ratio(distance: Distance, bound: Distance) -> float:
    """The largest of the three measures as multiples of their bounds."""
    ratios = combined(lambda value, limit: value / max(limit, _TINY), distance, bound)
    return max(ratios.norm, ratios.slice, ratios.component)


def as_real(tensor: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def all_finite(tensor: torch.Tensor) -> bool:
    """Whether every element is finite; False also where only their sum overflows."""
    wide = torch.float32 if tensor.dtype in (torch.float16, torch.bfloat16) else None
    return not tensor.is_floating_point() or bool(tensor.sum(dtype=wide).isfinite())


def joint_mask(*tensors: torch.Tensor) -> torch.Tensor | None:
    """Where all of them are finite; None for everywhere: the usual case, and the fast one."""
    if all(all_finite(tensor) for tensor in tensors):
        return None
    mask = tensors[0].isfinite()
    for tensor in tensors[1:]:
        mask = mask & tensor.isfinite()
    return mask


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


@dataclass(slots=True)
class Sums:
    """Of squares and of counted elements: in all, and by index of each axis (mutable)."""

    total: float
    count: int
    axes: dict[int, torch.Tensor]
    counts: dict[int, torch.Tensor]


class Accumulator:
    """Distance of a tensor from the oracle, fed in pieces along axis 0 (float64 inside).

    shape: of the whole tensor. rms: root mean square of the oracle's valid elements, or of the
    reference's; where that is zero, the magnitude that an error shall be compared with.
    """

    def __init__(self, shape: Sequence[int], rms: float, device: torch.device) -> None:
        self.shape = tuple(shape) or (1,)
        self.rms = rms or _TINY
        self._errors = _no_sums(self.shape, device)
        self._squares = _no_sums(self.shape, device)
        self._component, self._where = 0.0, ()

    def add(
        self,
        tensor: torch.Tensor,
        oracle: torch.Tensor,
        valid: torch.Tensor | None,
        first: int = 0,
    ) -> None:
        """Take in rows `first`, `first` + 1, ...; only elements where `valid` (None: all) count."""
        rows = [t.reshape(t.shape or (1,)) for t in (tensor, oracle)]
        mask = None if valid is None else valid.reshape(valid.shape or (1,))
        for start, stop in pieces(rows[0]):
            kept = None if mask is None else mask[start:stop]
            t, o = (_masked(r[start:stop], kept) for r in rows)
            error = (t - o).abs_()
            self._add_component(error, o, first + start)
            _add_squares(self._errors, error.square_(), kept, first + start)
            _add_squares(self._squares, o.square(), kept, first + start)

    def _add_component(self, error: torch.Tensor, wide: torch.Tensor, first: int) -> None:
        if not error.numel():
            return
        ratio = error / wide.abs().add_(self.rms)
        flat = int(ratio.argmax())
        if (value := float(ratio.reshape(-1)[flat])) > self._component:
            index = torch.unravel_index(torch.tensor(flat), ratio.shape)
            self._component = value
            self._where = (first + int(index[0]), *(int(i) for i in index[1:]))

    def result(self) -> Distance:
        errors, squares = self._errors, self._squares
        scale = math.sqrt(squares.total) or self.rms * math.sqrt(max(squares.count, 1))
        norm = math.sqrt(errors.total) / scale
        slices = [
            _worst_slice(errors.axes[d], squares.axes[d], squares.counts[d], self.rms)
            for d in errors.axes
        ]
        return Distance(norm, max([norm, *slices]), self._component, self._where)


def _no_sums(shape: tuple[int, ...], device: torch.device) -> Sums:
    """An axis whose slices are single elements is left out: components are measured anyway."""
    axes = [d for d, extent in enumerate(shape) if 1 < extent < math.prod(shape)]
    zeros = [torch.zeros(shape[d], dtype=torch.float64, device=device) for d in axes]
    return Sums(0.0, 0, dict(zip(axes, zeros)), {d: z.clone() for d, z in zip(axes, zeros)})


def _add_squares(sums: Sums, squares: torch.Tensor, valid: torch.Tensor | None, first: int) -> None:
    rows = squares.shape[0]
    sums.total += float(squares.sum())
    sums.count += squares.numel() if valid is None else int(valid.sum())
    for d, by_index in sums.axes.items():
        others = [k for k in range(squares.ndim) if k != d]
        where = slice(first, first + rows) if d == 0 else slice(None)
        by_index[where] += squares.sum(others)
        share = squares.numel() // max(squares.shape[d], 1)
        sums.counts[d][where] += share if valid is None else valid.sum(others)


def _worst_slice(
    errors: torch.Tensor, squares: torch.Tensor, counts: torch.Tensor, rms: float
) -> float:
    least = (_SMALL_SLICE * rms) ** 2 * counts.clamp(min=1)
    return math.sqrt(float((errors / torch.maximum(squares, least).clamp(min=_TINY)).max()))


def pieces(tensor: torch.Tensor) -> Iterator[tuple[int, int]]:
    """[start, stop) along axis 0, so that a large tensor needs little extra memory: on the CPU
    pieces that stay in cache, on a GPU pieces that fill it."""
    size = _CPU_CHUNK if tensor.device.type == "cpu" else _GPU_CHUNK
    rows = tensor.shape[0]
    step = max(1, size // max(tensor.numel() // max(rows, 1), 1))
    for start in range(0, rows, step):
        yield start, min(rows, start + step)


def finite_share(tensor: torch.Tensor) -> float:
    """The share of finite elements; 1.0 where there is none."""
    rows = tensor.reshape(tensor.shape or (1,))
    count = sum(int(rows[a:b].isfinite().sum()) for a, b in pieces(rows))
    return count / tensor.numel() if tensor.numel() else 1.0


def _masked(tensor: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
    return tensor.double() if valid is None else torch.where(valid, tensor.double(), 0.0)


def root_mean_square(tensor: torch.Tensor) -> float:
    """Over the finite elements; 0.0 where there is none."""
    valid = joint_mask(tensor)
    square, count = 0.0, 0
    rows = tensor.reshape(tensor.shape or (1,))
    for start, stop in pieces(rows):
        kept = None if valid is None else valid.reshape(rows.shape)[start:stop]
        square += float(_masked(rows[start:stop], kept).square().sum())
        count += rows[start:stop].numel() if kept is None else int(kept.sum())
    return math.sqrt(square / count) if count else 0.0


def accuracy_class(norm: float, eager: float, float32_bound: float, tf32_bound: float) -> str:
    """The name of the accuracy class of a float32 output with relative L2 error `norm`."""
    if norm <= eager:
        return "more accurate than the reference"
    if norm <= float32_bound:
        return "float32 class"
    if norm <= tf32_bound / _TF32_SPAN:
        return "between float32 and TF32"
    if norm <= tf32_bound:
        return "TF32 class"
    return "half class" if norm <= 8 * tf32_bound else "below half class"
