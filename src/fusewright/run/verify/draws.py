"""Inputs and weights to test with: what the problem gives, and what it does not give.

Every draw is a pure function of (what is given, kind, seed), made with a generator of its own. Only
floating-point data that looks continuous is redrawn: integers, booleans, masks (of two values) and
tensors that hold NaN or Inf keep their meaning and their values.
"""

import math
from collections.abc import Callable

import torch

# Largest tensor whose distinct values are counted in full; larger ones by this many elements.
_PROBE = 1 << 16
# Pairs of elements of which the most different ones are exchanged.
_PAIRS = 64
# Tensors of more elements are drawn in pieces.
_PIECE = 1 << 27


def is_continuous(tensor: torch.Tensor) -> bool:
    """Floating point (or complex), finite, and not a mask of two values."""
    if not (tensor.is_floating_point() or tensor.is_complex()) or tensor.numel() == 0:
        return False
    probe = tensor.reshape(-1)[:_PROBE]
    if not bool(probe.isfinite().all()):
        return False
    return tensor.numel() < 8 or tensor.is_complex() or len(probe.unique()) != 2


def _noise(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Standard normal, of the shape, dtype and device of `like`."""
    dtype = torch.float64 if like.dtype == torch.float64 else torch.float32
    made = torch.randn(like.shape, generator=generator, device=generator.device, dtype=dtype)
    return made.to(like.device)


def _scale(tensor: torch.Tensor) -> float:
    """Root mean square, 1.0 for a tensor of zeros."""
    return float(tensor.abs().float().square().mean().sqrt()) or 1.0


def _normal(x: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    return _noise(x, g) * _scale(x)


def _shifted(x: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    return _noise(x, g) * _scale(x) + 5 * _scale(x)


def _negated(x: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    return _noise(x, g) * _scale(x) - 3 * _scale(x)


def _large(x: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    return _noise(x, g) * (10 * _scale(x))


def _small(x: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    return _noise(x, g) * (0.01 * _scale(x))


def _heavy(x: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    """Log-normal magnitudes of both signs (sigma 1.5), each row scaled by 2^-3 to 2^3."""
    tails = _noise(x, g) * (1.5 * _noise(x, g).abs()).exp()
    if x.ndim > 1:
        rows = torch.arange(x.shape[0], device=x.device).remainder(7).sub(3).to(torch.float32)
        tails = tails * torch.exp2(rows).view(-1, *[1] * (x.ndim - 1))
    return tails * _scale(x)


def _ties(x: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    """Few distinct values, zero among them: ties in maxima, and every kink at zero."""
    return (_noise(x, g) * 2).round() * (0.5 * _scale(x))


REDRAWN: dict[str, Callable[[torch.Tensor, torch.Generator], torch.Tensor]] = {
    "normal": _normal,
    "shifted": _shifted,
    "negative": _negated,
    "large": _large,
    "small": _small,
    "heavy": _heavy,
    "ties": _ties,
}
# Other values of Python's numbers, of one type each.
OTHER_NUMBERS: dict[str, Callable[[object], object]] = {
    "floats": lambda x: 0.75 * x or 0.5 if type(x) is float else x,
    "ints": lambda x: x + 1 if type(x) is int else x,
}
SPECIAL = (math.nan, math.inf, -math.inf, 1e-42, -1e-42, -0.0, 3e38, -3e38)


def redraw(tensor: torch.Tensor, kind: str, generator: torch.Generator) -> torch.Tensor:
    """`tensor` drawn again by the rule `kind` of REDRAWN; unchanged where it is not continuous."""
    if not is_continuous(tensor):
        return tensor
    if tensor.is_complex():
        return torch.view_as_complex(redraw(_parts(tensor), kind, generator))
    if tensor.numel() > _PIECE and tensor.ndim and tensor.shape[0] > 1:
        return _redrawn_in_pieces(tensor, kind, generator)
    limits = torch.finfo(tensor.dtype)
    return REDRAWN[kind](tensor, generator).clamp(limits.min, limits.max).to(tensor.dtype)


def _parts(tensor: torch.Tensor) -> torch.Tensor:
    """Real and imaginary parts along a further axis, dense."""
    return torch.view_as_real(tensor.resolve_conj()).contiguous()


def _redrawn_in_pieces(tensor: torch.Tensor, kind: str, generator: torch.Generator) -> torch.Tensor:
    """`redraw` in slices of axis 0, since a draw needs several times its size."""
    made, rows = torch.empty_like(tensor), tensor.shape[0]
    step = max(1, _PIECE * rows // tensor.numel())
    for first in range(0, rows, step):
        made[first : first + step] = redraw(tensor[first : first + step], kind, generator)
    return made


def with_special_values(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One special value in each of a few places, all in different rows where there are enough."""
    if not is_continuous(tensor) or tensor.is_complex():
        return tensor
    flat = tensor.clone().reshape(-1)
    places = special_places(tensor.numel())
    special = torch.tensor(SPECIAL[: len(places)], device=tensor.device).to(tensor.dtype)
    flat[torch.tensor(places, device=tensor.device)] = special
    return flat.reshape(tensor.shape)


def special_places(count: int) -> list[int]:
    """Where special values go among `count` elements: evenly spread, from the first to the last."""
    places = min(len(SPECIAL), max(1, count // 4))
    return [i * (count - 1) // max(places - 1, 1) for i in range(places)]


def with_new_tail(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Only the last row (the last element of a vector) is drawn anew."""
    if not is_continuous(tensor) or tensor.ndim == 0:
        return tensor
    changed = tensor.clone()
    changed[-1:] = redraw(tensor[-1:], "normal", generator)
    return changed


def with_two_exchanged(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Two elements, of different rows where there are any, have changed places: the sum, the
    extremes and nearly every sample of the values stay the same."""
    if not is_continuous(tensor) or tensor.numel() < 2:
        return tensor
    flat = tensor.clone(memory_format=torch.contiguous_format).reshape(-1)
    shape = (_PAIRS, 2)
    pairs = torch.randint(flat.numel(), shape, generator=generator, device=generator.device)
    pairs = pairs.to(tensor.device)
    rows = pairs // max(1, flat.numel() // tensor.shape[0])
    apart = (flat[pairs[:, 0]] - flat[pairs[:, 1]]).abs() * (1 + 1e3 * (rows[:, 0] != rows[:, 1]))
    chosen = pairs[apart.argmax()]
    flat[chosen] = flat[chosen.flip(0)]
    return flat.reshape(tensor.shape)


def redraw_weight(tensor: torch.Tensor, kind: str, generator: torch.Generator) -> torch.Tensor:
    """A weight with other values of the same nature.

    Varied weights keep their mean and spread; constant ones (a normalisation's 1 and 0) get a
    spread of a half around their value. `kind` "heavy" gives a few entries of each weight four
    times their size, "offset" makes most of them positive, so that sums of products are large
    beside their differences, "small" scales varied weights by a hundredth, so that constants such
    as an epsilon count.
    """
    if not is_continuous(tensor):
        return tensor
    if tensor.is_complex():
        return torch.view_as_complex(redraw_weight(_parts(tensor), kind, generator))
    wide = tensor.float()
    spread = float(wide.std(correction=0)) if tensor.numel() > 1 else 0.0
    constant = spread < 1e-6 * max(1.0, *(abs(float(end)) for end in wide.aminmax()))
    # In place, since a large weight must not be held several times.
    drawn = _noise(tensor, generator).float().mul_(0.5 if constant else spread).add_(wide.mean())
    if kind == "heavy":
        drawn.mul_(_noise(tensor, generator).float().gt_(2.0).mul_(3.0).add_(1.0))
    if kind == "small" and not constant:
        drawn.mul_(0.01)
    if kind == "offset":
        drawn.add_(2 * (0.5 if constant else spread))
    return drawn.to(tensor.dtype)


def redraw_positive(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """For a buffer without negative values: a running variance gets values from 0.5 to 2 times its
    size. One of zeros only, such as a running mean, may take either sign."""
    if not is_continuous(tensor) or not bool(tensor.any()):
        return redraw_weight(tensor, "random", generator)
    uniform = torch.rand(tensor.shape, generator=generator, device=generator.device)
    return (0.5 + 1.5 * uniform).to(tensor.device, tensor.dtype) * _scale(tensor)
