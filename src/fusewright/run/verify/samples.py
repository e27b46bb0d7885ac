"""Two random modules compared as distributions: samples' moments, as commands of the referee.

Used only when a candidate draws other random numbers than the reference does from the same seed.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch

from fusewright.run.verify import dependence, generators, referee, specs, tensors
from fusewright.run.verify.book import Book, Point
from fusewright.run.verify.specs import Spec

# Two-sided limits on statistics whose expectation is 1 (see `compare_samples`).
_MEAN_LIMIT = 1.5
_SPREAD_LIMIT = 1.25
_ZEROS_SIGMA = 5.0


@dataclass(slots=True)
class Moments:
    """Sums over samples of one output, element by element, in float64; a corner of each sample."""

    count: int
    total: torch.Tensor
    square: torch.Tensor
    zeros: float
    corners: list[torch.Tensor]

    @property
    def mean(self) -> torch.Tensor:
        return self.total / self.count

    @property
    def variance(self) -> torch.Tensor:
        spread = self.square / self.count - self.mean.square()
        return spread.clamp(min=0) * self.count / max(self.count - 1, 1)


def sample_add(book: Book, owner: str, output: Spec) -> None:
    """Take in one output of the candidate."""
    for path, leaf in specs.tensors(output):
        _add(book, f"{owner} output{path}", referee.read(book, leaf).to(book.session.device))


def sample_reference(book: Book, weights: str, inputs: str, train: bool, seeds: list[int]) -> None:
    """Take in the reference's outputs at these seeds."""
    for seed in seeds:
        referee.prepare(book, "reference", Point(weights, inputs, seed, train))
        generators.seed(seed)
        with torch.no_grad():
            output = book.session.slots["reference"](*book.session.inputs["point"])
        for path, leaf in tensors.tensor_leaves(output):
            _add(book, f"reference output{path}", leaf)


def _add(book: Book, key: str, value: torch.Tensor) -> None:
    wide = value.detach().double()
    old = book.samples.get(key)
    zeros = float((wide == 0).double().mean())
    if old is None:
        corners = [dependence.corner(wide).clone()]
        book.samples[key] = Moments(1, wide.clone(), wide.square(), zeros, corners)
    else:
        old.corners.append(dependence.corner(wide).clone())
        old.count, old.zeros = old.count + 1, old.zeros + zeros
        old.total += wide
        old.square += wide.square()


def compare_samples(book: Book) -> list[dict[str, Any]]:
    """Per output: do means, spreads, shares of zeros and the dependence of elements on one another
    agree within what chance explains?

    mean: average over elements of (m1 - m2)^2 / ((v1 + v2) / n), expected 1. spread: ratio of the
    summed variances, expected 1. zeros: difference of the shares in standard deviations of a
    binomial count.
    """
    keys = [k.removeprefix("reference ") for k in book.samples if k.startswith("reference ")]
    found = [
        _compare(key, book.samples[f"reference {key}"], book.samples[f"candidate {key}"])
        for key in keys
    ]
    book.samples.clear()
    return found


def _compare(path: str, ours: Moments, theirs: Moments) -> dict[str, Any]:
    moving = (ours.variance + theirs.variance) > 0
    error = (ours.variance + theirs.variance)[moving] / ours.count
    shift = (ours.mean - theirs.mean)[moving].square()
    mean = float((shift / error).mean()) if bool(moving.any()) else 0.0
    spread = (float(theirs.variance.sum()) or 1e-300) / (float(ours.variance.sum()) or 1e-300)
    share, other = ours.zeros / ours.count, theirs.zeros / theirs.count
    sigma = math.sqrt(max(share * (1 - share), 1e-12) * 2 / (ours.count * ours.total.numel()))
    zeros = abs(share - other) / sigma
    fixed = float((ours.mean - theirs.mean)[~moving].abs().max()) if bool((~moving).any()) else 0.0
    limit = _MEAN_LIMIT + 10 / math.sqrt(ours.total.numel())
    width = _SPREAD_LIMIT + 10 / math.sqrt(ours.count * ours.total.numel())
    ok = mean < limit and 1 / width < spread < width and zeros < _ZEROS_SIGMA and fixed < 1e-6
    together = dependence.differs(ours.corners, theirs.corners) if ok and bool(moving.any()) else ""
    text = f"mean {mean:.3g}, spread {spread:.3g} (1 expected), zeros {share:.3g} and {other:.3g}"
    reason = f"{together}; {text}" if together else text
    return {"path": path, "ok": ok and not together, "reason": reason}


COMMANDS = {
    "sample_add": sample_add,
    "sample_reference": sample_reference,
    "compare_samples": compare_samples,
}
