"""Which elements of a random output move together: a mask may be each one's, or a whole column's.

A pure function on samples. Two elements of one output are compared by the square of their
correlation over the samples, which does not care for signs or scales; pairs are gathered by the set
of axes along which their places differ.
"""

import math
from collections.abc import Sequence

import torch

# Elements of an output that are looked at, axes that are told apart, samples left out at a time.
_ELEMENTS, _MOST_AXES, _GROUPS = 1024, 5, 8
_SIGMAS, _LEAST = 6.0, 0.01


def corner(tensor: torch.Tensor) -> torch.Tensor:
    """At most _ELEMENTS elements: the first ones along each axis, as many of each as can be."""
    left, axes = _ELEMENTS, sorted(range(tensor.ndim), key=lambda axis: tensor.shape[axis])
    for done, axis in enumerate(axes):
        taken = min(tensor.shape[axis], max(1, int(left ** (1 / (tensor.ndim - done)))))
        tensor = tensor.narrow(axis, 0, taken)
        left //= max(taken, 1)
    if tensor.ndim > _MOST_AXES:
        tensor = tensor.flatten(0, tensor.ndim - _MOST_AXES)
    return tensor


def differs(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor]) -> str:
    """How the second samples depend on one another otherwise than the first, in words; "" for not.

    Both are samples of one shape, equally many. What chance explains is estimated by the jackknife:
    each statistic again without an eighth of the samples.
    """
    if ours[0].numel() < 2:
        return ""
    sides = [torch.stack([t.double().reshape(-1) for t in samples]) for samples in (ours, theirs)]
    kinds = _kinds(ours[0].shape, ours[0].device)
    means, errors = zip(*(_with_error(side, kinds) for side in sides))
    for kind in range(1, len(means[0])):
        first, second = float(means[0][kind]), float(means[1][kind])
        noise = math.hypot(float(errors[0][kind]), float(errors[1][kind]))
        if abs(first - second) > _LEAST + _SIGMAS * noise:
            axes = [axis for axis in range(ours[0].ndim) if kind >> axis & 1]
            return (
                f"elements apart along axis {' and '.join(map(str, axes))} have a squared "
                f"correlation of {second:.2g} over the samples, not {first:.2g}"
            )
    return ""


def _kinds(shape: torch.Size, device: torch.device) -> torch.Tensor:
    """For each pair of elements, bit by bit, along which axes their places differ."""
    places = torch.unravel_index(torch.arange(math.prod(shape), device=device), shape)
    kinds = torch.zeros((), dtype=torch.int64, device=device)
    for axis, place in enumerate(places):
        kinds = kinds + (place[:, None] != place[None]).long().mul_(1 << axis)
    return kinds


def _with_error(samples: torch.Tensor, kinds: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    whole = _squared_correlations(samples, kinds)
    group = torch.arange(len(samples), device=samples.device) % _GROUPS
    parts = [_squared_correlations(samples[group != k], kinds) for k in range(_GROUPS)]
    spread = torch.stack(parts).var(0, correction=0) * (_GROUPS - 1)
    return whole, spread.sqrt()


def _squared_correlations(samples: torch.Tensor, kinds: torch.Tensor) -> torch.Tensor:
    """Mean squared correlation of the pairs of each kind; of elements that move at all."""
    centred = samples - samples.mean(0)
    norms = centred.norm(dim=0)
    moving = (norms > 1e-9 * samples.abs().amax(0)) & norms.isfinite()
    unit = centred[:, moving] / norms[moving]
    squares = (unit.t() @ unit).square().reshape(-1)
    kept = kinds[moving][:, moving].reshape(-1)
    count = int(kinds.max()) + 1
    sums = torch.bincount(kept, weights=squares, minlength=count)
    return sums / torch.bincount(kept, minlength=count).clamp(min=1)
