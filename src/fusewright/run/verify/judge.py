"""One tensor of a candidate against what the reference allows: bounds, verdict, worst element.

A `Slice` holds some rows of all tensors of the reference, as eager computed them and in float64; an
`Expected` finds those of one tensor there, with the bound that follows from all slices.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
# Flat positions of an integer tensor, and other values that are right there.
Flips = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Expected:
    """What one tensor should be. `parts` may be called often and may compute anew each time.

    bound: what is nearer is right. doubt: what is further away is wrong; between the two nothing
    can be told. draws: distances that random rounding made (see `with_draws`). flips: values that
    rounding turned others into, of integers and booleans.
    """

    path: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    exact: bool
    has_oracle: bool
    rms: float
    eager: Distance
    bound: Distance
    parts: Parts
    doubt: Distance = metrics.ZERO
    draws: tuple[Distance, ...] = ()
    flips: tuple[Flips, ...] = ()


# Another way of eager's (see `with_ways`) that errs by more than so many bounds does not count.
_FAR_WAY = 10.0
NO_ORACLE = "there is no float64 result to compare with"


def as_given(expected: Expected, part: torch.Tensor) -> torch.Tensor:
    """A part's tensor in the dtype that the whole has: complex where it is."""
    return torch.view_as_complex(part.contiguous()) if expected.dtype.is_complex else part


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
    found: dict[str, Expected] = {}
    for path, whole in wholes.items():
        exact, parts = is_exact(whole.dtype), partial(_parts, slices, path)
        rms = 1.0 if exact else metrics.root_mean_square(metrics.as_real(whole)) or zero_scale
        none = (metrics.ZERO, metrics.ZERO)
        known = (path, whole.dtype, tuple(whole.shape), exact, has_oracle, rms)
        found[path] = Expected(*known, *none, parts)
    runs, flips = _other_runs(found, slices)
    return {p: _bounded(e, runs.get(p, []), flips.get(p, ()), slack) for p, e in found.items()}


def _bounded(
    expected: Expected, runs: list[Distance], flips: Sequence[Flips], slack: float
) -> Expected:
    """The expectation with the bounds that follow from runs that are allowed, eager's first."""
    if not runs:
        return replace(expected, flips=tuple(flips))
    allowed, floor = metrics.combined(max, *runs, metrics.ZERO), metrics.floor_of(expected.dtype)
    bound = metrics.bound_of(allowed, floor, expected.shape, slack)
    return replace(expected, eager=runs[0], bound=bound, doubt=bound)


def with_draws(
    known: Mapping[str, Expected], slices: Slices, slack: float = 1.0
) -> dict[str, Expected]:
    """What is known, and what follows from further results under random rounding: the `others`."""
    runs, flips = _other_runs(known, slices)
    return {p: _drawn(e, runs.get(p, []), flips.get(p, ()), slack) for p, e in known.items()}


def _drawn(
    expected: Expected, runs: list[Distance], flips: Sequence[Flips], slack: float
) -> Expected:
    draws = (*expected.draws, *runs[1:])
    if not draws:
        return replace(expected, flips=(*expected.flips, *flips))
    bound = metrics.combined(max, expected.bound, metrics.bound_of_draws(draws, slack))
    doubt = metrics.doubt_of(draws, bound, slack)
    return replace(expected, bound=bound, doubt=doubt, draws=draws)


def with_ways(known: Mapping[str, Expected], slices: Slices) -> dict[str, Expected]:
    """What is known, and what follows from other ways in which eager computes: the `others`. One
    that is nowhere near is a mistake, not a way."""
    runs, _ = _other_runs(known, slices)
    return {path: _in_all_ways(e, runs.get(path, [])) for path, e in known.items()}


def _in_all_ways(expected: Expected, runs: list[Distance]) -> Expected:
    far = metrics.scaled(expected.bound, _FAR_WAY)
    ways = [run for run in runs[1:] if metrics.within(run, far)]
    if not ways:
        return expected
    bound = metrics.combined(max, expected.bound, metrics.bound_of_draws(ways))
    return replace(expected, bound=bound, doubt=metrics.combined(max, expected.doubt, bound))


def _parts(slices: Slices, path: str) -> Iterator[Part]:
    return (piece.part(path) for piece in slices(False))


def _other_runs(
    known: Mapping[str, Expected], slices: Slices
) -> tuple[dict[str, list[Distance]], dict[str, list[Flips]]]:
    """By path: the distances of eager and of each of the others; what integers these change."""
    sums: dict[str, list[Accumulator]] = {p: [] for p, e in known.items() if not e.exact}
    flips: dict[str, list[Flips]] = {p: [] for p, e in known.items() if e.exact}
    for piece in slices(True):
        parts = {path: piece.part(path) for path in known}
        for i, run in enumerate(itertools.chain((piece.eager,), piece.others)):
            for path, made in sums.items():
                if i == len(made):
                    made.append(_accumulator(known[path], parts[path]))
                _add_run(made[i], parts[path], metrics.as_real(run[path]))
            for path, turned in flips.items():
                turned += _flipped(parts[path], run[path])
            # Not held while the next is computed.
            del run
        del piece, parts
    return {path: [s.result() for s in made] for path, made in sums.items()}, flips


def _accumulator(expected: Expected, part: Part) -> Accumulator:
    shape = (*expected.shape, 2) if expected.dtype.is_complex else expected.shape
    return Accumulator(shape, expected.rms, part.oracle.device)


def _flipped(part: Part, run: torch.Tensor) -> list[Flips]:
    """Where integers of a run are neither eager's nor the oracle's, and what they are there."""
    differs = ((run != part.eager) & (run != part.oracle)).reshape(-1)
    if not bool(differs.any()):
        return []
    at = differs.nonzero().squeeze(1)
    return [(at + part.first * (run.numel() // max(len(_flat(run)), 1)), run.reshape(-1)[at])]


def _add_run(sums: Accumulator, part: Part, tensor: torch.Tensor) -> None:
    sums.add(tensor, part.oracle, _also_finite(part, tensor), part.first)


def _also_finite(part: Part, tensor: torch.Tensor) -> torch.Tensor | None:
    """Where the references and `tensor` are finite."""
    own = metrics.joint_mask(tensor)
    if own is None or part.valid is None:
        return part.valid if own is None else own
    return part.valid & own


@dataclass(frozen=True, slots=True)
class Finding:
    """How one candidate tensor compares. `ok` None: cannot be told, `reason` says why.

    excess: the largest of the measures, as a multiple of what could be rounding's.
    """

    path: str
    ok: bool | None
    reason: str
    norm: float = 0.0
    eager: float = 0.0
    bound: float = 0.0
    exact: bool = False
    excess: float = math.inf

    def undecided(self, why: str) -> "Finding":
        """The same, open where it was wrong."""
        reason = f"{self.reason} ({why})"
        return replace(self, ok=None, reason=reason) if self.ok is False else self

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
    """Every element must be eager's, or what exact arithmetic gives (where eager rounded a tie), or
    what random rounding made of it."""
    wrong = 0
    reason = ""
    right = _turned_as_allowed(candidate, expected.flips)
    for part in expected.parts():
        rows = _rows(candidate, part)
        differs = (rows != part.eager) & (rows != part.oracle)
        if right is not None:
            differs &= ~_rows(right, part)
        wrong += int(differs.sum())
        if wrong and not reason:
            index = tuple(differs.nonzero()[0].tolist())
            reason = _example(index, part, rows)
    share = wrong / max(candidate.numel(), 1)
    text = f"{wrong} of {candidate.numel()} elements differ, which must be equal; {reason}"
    return Finding(expected.path, not wrong, text if wrong else "equal", share, exact=True)


def _turned_as_allowed(candidate: torch.Tensor, flips: Sequence[Flips]) -> torch.Tensor | None:
    """Where the candidate has a value that rounding made of another; None for nowhere."""
    if not flips:
        return None
    right = torch.zeros_like(candidate, dtype=torch.bool).reshape(-1)
    for at, turned in flips:
        right[at] |= candidate.reshape(-1)[at] == turned
    return right.view(candidate.shape)


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
        open_ = metrics.within(distance, expected.doubt) or not expected.has_oracle
        ok = None if open_ and distance.norm <= 1e3 * bound.norm else False
        reason = _excess(distance, bound, expected.eager)
        reason += "; worst " + _worst_example(distance, candidate, expected)
        if ok is None:
            reason += f" ({_chaos(expected) if expected.has_oracle else NO_ORACLE})"
    measured = (distance.norm, expected.eager.norm, bound.norm)
    excess = metrics.largest_ratio(distance, expected.doubt)
    return Finding(expected.path, ok, reason, *measured, excess=excess)


def _chaos(expected: Expected) -> str:
    norms = sorted(draw.norm for draw in expected.draws)
    return (
        f"random rounding alone gives errors from {norms[0]:.2g} to {norms[-1]:.2g}; "
        "this may be another such, or not"
    )


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
