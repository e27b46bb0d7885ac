"""Statistics of timing samples: medians, bootstrap intervals, paired ratios. No clock, no torch.

Interval: percentile bootstrap of the median (Efron and Tibshirani, An Introduction to the
Bootstrap, 1993, chapter 13), with a seeded generator: the same samples give the same report.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

RESAMPLES = 1000
LEVEL = 0.95
FEWEST_FOR_BOOTSTRAP = 6
SMALLEST_NOISE = 0.01

Verdict = Literal["faster", "slower", "indistinguishable"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A median with its 95 % interval, in the unit of the samples; `least` is the smallest one."""

    median: float
    low: float
    high: float
    least: float
    count: int


def estimate(samples: Sequence[float], seed: int = 0) -> Estimate:
    """Median and 95 % bootstrap interval; with fewer than 6 samples the interval is their range."""
    if not samples:
        raise ValueError("no samples to estimate a median from")
    size, least = len(samples), min(samples)
    if size < FEWEST_FOR_BOOTSTRAP:
        return Estimate(median(samples), least, max(samples), least, size)
    generator = random.Random(seed)
    medians = sorted(median(generator.choices(samples, k=size)) for _ in range(RESAMPLES))
    cut = round((1 - LEVEL) / 2 * RESAMPLES)
    return Estimate(median(samples), medians[cut], medians[-1 - cut], least, size)


def paired_ratio(baseline: Sequence[float], candidate: Sequence[float]) -> Estimate:
    """Baseline time over candidate time, pair by pair of the same round: above 1 is a speed-up.

    Pairs of one round share the state of the machine, so slow drift cancels in the ratio.
    """
    pairs = zip(baseline, candidate, strict=True)
    return estimate([slow / fast for slow, fast in pairs])


def noise_of(same_against_same: Estimate) -> float:
    """How far from 1 the ratio of a program to itself came out: at least 1 %, as a fraction."""
    ratio = same_against_same.median
    return max(SMALLEST_NOISE, ratio - 1, 1 / ratio - 1)


def judge(ratio: Estimate, noise: float) -> Verdict:
    """Names a difference only if the whole interval of the ratio lies outside of the noise."""
    if ratio.low > 1 + noise:
        return "faster"
    if ratio.high < 1 / (1 + noise):
        return "slower"
    return "indistinguishable"


def geometric_mean(ratios: Sequence[float]) -> float:
    """Geometric mean of positive ratios: the mean that speed-ups are averaged by."""
    product = 1.0
    for ratio in ratios:
        product *= ratio ** (1 / len(ratios))
    return product
