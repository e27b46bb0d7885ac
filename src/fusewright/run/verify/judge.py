"""One tensor of a candidate against what the reference allows: bounds, verdict, worst element.

An `Expected` holds a tensor of the reference twice, as eager computed it and in float64, in parts
along axis 0 (one part when it fits in memory), together with the bound that follows from both.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fusewright.run.verify import metrics
from fusewright.run.verify.metrics import Accumulator, Distance


@dataclass(frozen=True, slots=True)
class Part:
    """Rows `first`, `first` + 1, ... of eager's tensor, the oracle's, and other allowed ones.

    valid: where eager and oracle are both finite, None for everywhere.
    """

    first: int
    eager: torch.Tensor
    oracle: torch.Tensor
    allowed: tuple[torch.Tensor, ...] = ()
    valid: torch.Tensor | None = None

    @classmethod
    def of(
        cls,
        first: int,
        eager: torch.Tensor,
        oracle: torch.Tensor,
        allowed: Iterable[torch.Tensor] = (),
    ) -> "Part":
        """A part of real tensors; complex ones are taken as pairs of reals."""
        eager, oracle = metrics.as_real(eager), metrics.as_real(oracle)
        others = tuple(metrics.as_real(other) for other in allowed)
        return cls(first, eager, oracle, others, metrics.joint_mask(eager, oracle))


Parts = Callable[[bool], Iterator[Part]]


@dataclass(frozen=True, slots=True)
class Expected:
    """What one tensor should be. `parts` may be called often and may compute anew each time; its
    argument says whether the other allowed references are wanted too."""

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
    path: str,
    whole: torch.Tensor,
    parts: Parts,
    has_oracle: bool,
    zero_scale: float,
    slack: float = 1.0,
) -> Expected:
    """What the reference's tensor `whole` allows. `parts` yields it with its float64 counterparts.

    zero_scale: magnitude that errors are relative to where the tensor is zero throughout.
    slack: see metrics.bound_of.
    """
    dtype, shape = whole.dtype, tuple(whole.shape)
    if is_exact(dtype):
        none = metrics.ZERO
        return Expected(path, dtype, shape, True, has_oracle, 1.0, none, none, parts)
    real = metrics.as_real(whole)
    rms = metrics.root_mean_square(real) or zero_scale
    eager, allowed = _reference_distances(real, parts, rms)
    bound = metrics.bound_of(allowed, metrics.floor_of(dtype), shape, slack)
    return Expected(path, dtype, shape, False, has_oracle, rms, eager, bound, parts)


def _reference_distances(
    whole: torch.Tensor, parts: Parts, rms: float
) -> tuple[Distance, Distance]:
    """(eager's own distance, the largest over all allowed references)."""
    sums: list[Accumulator] = []
    for part in parts(True):
        for i, tensor in enumerate((part.eager, *part.allowed)):
            if i == len(sums):
                sums.append(Accumulator(whole.shape, rms, whole.device))
            valid = _also_finite(part, tensor)
            sums[i].add(tensor, part.oracle, valid, part.first)
    distances = [s.result() for s in sums] or [metrics.ZERO]
    largest = distances[0]
    for other in distances[1:]:
        largest = largest.at_least(other)
    return distances[0], largest


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
    for part in expected.parts(False):
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
    for part in expected.parts(False):
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
    for part in expected.parts(False):
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
