"""How far another draw of random rounding may go, from those that were seen: functions on numbers.

Nothing is known here of tensors or of what is done with the limit.
"""

import math
import statistics
from collections.abc import Sequence

# The probability that a further draw passes the limit, and the normal deviate that has it.
_CHANCE, _DEVIATE = 1e-6, 4.753
# The largest of some dozen |normal| deviates is about 4 times their median.
_SCATTER = 4.0
_TINY, _LARGEST_LOG = 1e-300, 600.0
FEWEST = 6


def limit(draws: Sequence[float]) -> float:
    """What a further draw exceeds about once in a million times; `draws` are at least FEWEST.

    Where rounding acts linearly, each measure is a seminorm of Gaussian errors. Such a one scatters
    no more than |x| of one normal deviate does, and has a Gaussian tail (Borell; Tsirelson,
    Ibragimov, Sudakov). Draws that scatter more come from a tail without scale.
    """
    if max(draws) <= _SCATTER * statistics.median(draws):
        return _gaussian(draws)
    return _heavy(sorted(draws, reverse=True))


def _gaussian(draws: Sequence[float]) -> float:
    """Of the predictive distribution (Student's t) with the deviation of the upper half."""
    middle, count = statistics.median(draws), len(draws)
    above = [(value - middle) ** 2 for value in draws if value > middle]
    deviation = math.sqrt(sum(above) / max(len(above), 1))
    return middle + _student(count - 1) * math.sqrt(1 + 1 / count) * deviation


def _student(freedom: int) -> float:
    """The quantile of Student's t that belongs to _CHANCE (D. L. Wallace, 1959)."""
    normal = _DEVIATE * (8 * freedom + 3) / (8 * freedom + 1)
    return math.sqrt(freedom * math.expm1(normal**2 / freedom))


def _heavy(falling: Sequence[float]) -> float:
    """Of a power law: logarithms of the largest draws over the next one are exponential (B. M.
    Hill, 1975), here of unknown scale, so that few draws leave much open."""
    count = len(falling)
    used = min(math.ceil(2 * math.sqrt(count)), count - 1)
    start = max(falling[used], _TINY)
    excess = sum(math.log(value / start) for value in falling[:used] if value > start)
    stretch = excess * ((used / count / _CHANCE) ** (1 / used) - 1)
    return start * math.exp(min(stretch, _LARGEST_LOG))
