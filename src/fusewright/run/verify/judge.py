"""One tensor of a candidate against what the reference allows: bounds, verdict, worst element.

A `Slice` holds some rows of all tensors of the reference, as eager computed them and in float64; an
`Expected` finds those of one tensor there, with the bound that follows from all slices.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from fusewright.run.verify import metrics
from fusewright.run.verify.metrics import Accumulator, Distance


@dataclass(frozen=True, slots=True)
class Part:
    """Rows `first`, `first` + 1, ... of eager's tensor and of the oracle's.

    valid: where both are finite, None for everywhere.
    """

    first: int
    eager: torch.Tensor
    oracle: torch.Tensor
    valid: torch.Tensor | None = None

    @classmethod
    def of(cls, first: int, eager: torch.Tensor, oracle: torch.Tensor) -> "Part":
        """A part of real tensors; complex ones are taken as pairs of reals."""
        eager, oracle = metrics.as_real(eager), metrics.as_real(oracle)
        return cls(first, eager, oracle, metrics.joint_mask(eager, oracle))


Parts = Callable[[], Iterator[Part]]
Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows `first`, `first` + 1, ... of the reference's tensors by path: eager's, the oracle's.

    others: further results that are as right as the oracle; each is computed when it is asked for
    and may be dropped before the next, since together they would not fit.
    """

    first: int
    eager: Tensors
    oracle: Tensors
    others: Iterable[Tensors] = ()

    def part(self, path: str) -> Part:
        return Part.of(self.first, self.eager[path], self.oracle[path])


# May be called often and may compute anew each time; `others` are wanted where it is given True.
Slices = Callable[[bool], Iterable[Slice]]


@dataclass(frozen=True, slots=True)
class Expected:
    """What one tensor should be. `parts` may be called often and may compute anew each time."""

    path: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    exact: bool
    has_oracle: bool
    rms: float
    eager: Distance
    bound: Distance
    parts: Parts


def is_exact(dtype: torch.dtype) -> bool:
    """Integers and booleans are compared for equality."""
    return not (dtype.is_floating_point or dtype.is_complex)


def expect(
    wholes: Tensors, slices: Slices, has_oracle: bool, zero_scale: float, slack: float = 1.0
) -> dict[str, Expected]:
    """What the reference's tensors `wholes` allow; `slices` yields them with their counterparts.

    zero_scale: magnitude that errors are relative to where a tensor is zero throughout.
    slack: see metrics.bound_of.
    """
    real = {p: metrics.as_real(t) for p, t in wholes.items() if not is_exact(t.dtype)}
    scales = {p: metrics.root_mean_square(t) or zero_scale for p, t in real.items()}
    distances = _reference_distances(real, slices, scales) if real else {}
    found: dict[str, Expected] = {}
    for path, whole in wholes.items():
        eager, allowed = distances.get(path, (metrics.ZERO, metrics.ZERO))
        dtype, shape, exact = whole.dtype, tuple(whole.shape), path not in real
        floor = 0.0 if exact else metrics.floor_of(dtype)
        bound = metrics.bound_of(allowed, floor, shape, slack)
        rms = scales.get(path, 1.0)
        parts = partial(_parts, slices, path)
        found[path] = Expected(path, dtype, shape, exact, has_oracle, rms, eager, bound, parts)
    return found


def _parts(slices: Slices, path: str) -> Iterator[Part]:
    return (piece.part(path) for piece in slices(False))


def _reference_distances(
    wholes: Tensors, slices: Slices, scales: dict[str, float]
) -> dict[str, tuple[Distance, Distance]]:
    """By path: eager's own distance, and the largest over all allowed references."""
    sums: dict[str, list[Accumulator]] = {path: [] for path in wholes}
    for piece in slices(True):
        parts = {path: piece.part(path) for path in wholes}
        for i, run in enumerate(itertools.chain((piece.eager,), piece.others)):
            for path, whole in wholes.items():
                if i == len(sums[path]):
                    sums[path].append(Accumulator(whole.shape, scales[path], whole.device))
                _add_run(sums[path][i], parts[path], metrics.as_real(run[path]))
            # Not held while the next is computed.
            del run
        del piece, parts
    return {path: _own_and_largest([s.result() for s in made]) for path, made in sums.items()}


def _add_run(sums: Accumulator, part: Part, tensor: torch.Tensor) -> None:
    sums.add(tensor, part.oracle, _also_finite(part, tensor), part.first)


def _own_and_largest(distances: list[Distance]) -> tuple[Distance, Distance]:
    own = largest = distances[0] if distances else metrics.ZERO
    for other in distances[1:]:
        largest = largest.at_least(other)
    return own, largest


def _also_finite(part: Part, tensor: torch.Tensor) -> torch.Tensor | None:
    """Where the references and `tensor` are finite."""
    own = metrics.joint_mask(tensor)
    if own is None or part.valid is None:
        return part.valid if own is None else own
    return part.valid & own


@dataclass(frozen=True, slots=True)
class Finding:
    """How one candidate tensor compares. `ok` None: cannot be told for want of an oracle."""

    path: str
    ok: bool | None
    reason: str
    norm: float = 0.0
    eager: float = 0.0
    bound: float = 0.0
    exact: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "ok": self.ok,
            "reason": self.reason,
            "norm": self.norm,
            "eager": self.eager,
            "bound": self.bound,
            "exact": self.exact,
        }


def judge(candidate: torch.Tensor, expected: Expected) -> Finding:
    """Compare; a tensor of another dtype or shape is wrong whatever its values are."""
    if candidate.dtype != expected.dtype or tuple(candidate.shape) != expected.shape:
        found = f"{candidate.dtype} of shape {list(candidate.shape)}"
        wanted = f"{expected.dtype} of shape {list(expected.shape)}"
        return Finding(expected.path, False, f"is {found}, not {wanted}", math.inf)
    return judge_values(candidate, expected)


def judge_values(candidate: torch.Tensor, expected: Expected) -> Finding:
    """As `judge`, for values of the right shape in any dtype."""
    if expected.exact:
        return _judge_exact(candidate, expected)
    return _judge_float(metrics.as_real(candidate), expected)


def _judge_exact(candidate: torch.Tensor, expected: Expected) -> Finding:
    """Every element must be eager's, or what exact arithmetic gives (where eager rounded a tie)."""
    wrong = 0
    reason = ""
    for part in expected.parts():
        rows = _rows(candidate, part)
        differs = (rows != part.eager) & (rows != part.oracle)
        wrong += int(differs.sum())
        if wrong and not reason:
            index = tuple(differs.nonzero()[0].tolist())
            reason = _example(index, part, rows)
    share = wrong / max(candidate.numel(), 1)
    text = f"{wrong} of {candidate.numel()} elements differ, which must be equal; {reason}"
    return Finding(expected.path, not wrong, text if wrong else "equal", share, exact=True)


def _judge_float(candidate: torch.Tensor, expected: Expected) -> Finding:
    sums = Accumulator(candidate.shape, expected.rms, candidate.device)
    for part in expected.parts():
        rows = _rows(candidate, part)
        valid = _also_finite(part, rows)
        wrong, index = 0, ()
        if valid is not None:
            wrong, index = metrics.pattern_mismatches(rows, part.eager, part.oracle)
        if wrong:
            text = (
                f"NaN or Inf in the wrong places ({wrong} elements); {_example(index, part, rows)}"
            )
            return Finding(expected.path, False, text, math.inf, expected.eager.norm)
        sums.add(rows, part.oracle, valid, part.first)
    return _conclude(sums.result(), candidate, expected)


def _conclude(distance: Distance, candidate: torch.Tensor, expected: Expected) -> Finding:
    bound = expected.bound
    if metrics.within(distance, bound):
        reason, ok = f"relative L2 error {distance.norm:.2g}, allowed {bound.norm:.2g}", True
    else:
        ok = False if expected.has_oracle or distance.norm > 1e3 * bound.norm else None
        reason = _excess(distance, bound, expected.eager)
        reason += "; worst " + _worst_example(distance, candidate, expected)
    return Finding(expected.path, ok, reason, distance.norm, expected.eager.norm, bound.norm)


def _excess(distance: Distance, bound: Distance, eager: Distance) -> str:
    """Which of the measures is exceeded, in words."""
    for value, limit, own, name in (
        (distance.norm, bound.norm, eager.norm, "relative L2 error"),
        (distance.slice, bound.slice, eager.slice, "relative L2 error of one row or channel"),
        (distance.component, bound.component, eager.component, "error of one element"),
    ):
        if value > limit:
            measured = f"{name} {value:.2g} against float64"
            return f"{measured}; the reference has {own:.2g}, allowed {limit:.2g}"
    return ""


def _worst_example(distance: Distance, candidate: torch.Tensor, expected: Expected) -> str:
    where = distance.where
    for part in expected.parts():
        if where and part.first <= where[0] < part.first + max(len(_flat(part.oracle)), 1):
            return _example((where[0] - part.first, *where[1:]), part, _rows(candidate, part))
    return "element unknown"


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(1) if tensor.ndim == 0 else tensor


def _example(index: Sequence[int], part: Part, rows: torch.Tensor) -> str:
    """`at [3, 0]: 1.5 where 2.5 is right`."""
    if not index and rows.ndim:
        return ""
    place = tuple(index) if rows.ndim else ()
    shown = [index[0] + part.first, *index[1:]] if place else []
    return f"at {shown}: {rows[place].item():.8g} where {part.oracle[place].item():.8g} is right"


def _rows(candidate: torch.Tensor, part: Part) -> torch.Tensor:
    """The candidate's rows that belong to a part."""
    if candidate.ndim == 0 or candidate.shape[0] == part.oracle.shape[0]:
        return candidate
    return candidate[part.first : part.first + part.oracle.shape[0]]
