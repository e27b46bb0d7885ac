"""Statistics, floors and the judgement of raw samples: no clock, no subprocess."""

import random
from typing import Any

import pytest

from fusewright.run.bench.floor import beats_light, floor_of, program_floor_ms
from fusewright.run.bench.report import build_report
from fusewright.run.bench.stats import (
    estimate,
    geometric_mean,
    judge,
    noise_of,
    paired_ratio,
)


def noisy(centre: float, count: int = 60, spread: float = 0.05, seed: int = 0) -> list[float]:
    generator = random.Random(seed)
    return [centre * generator.lognormvariate(0, spread) for _ in range(count)]


def test_interval_holds_the_true_median_about_as_often_as_it_says():
    held = 0
    for seed in range(60):
        found = estimate(noisy(1.0, seed=seed))
        held += found.low <= 1.0 <= found.high
    assert 52 <= held


def test_few_samples_give_their_range():
    found = estimate([3.0, 1.0, 2.0])
    assert (found.median, found.low, found.high, found.count) == (2.0, 1.0, 3.0, 3)


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="no samples"):
        estimate([])


def test_same_samples_give_the_same_interval():
    assert estimate(noisy(2.0)) == estimate(noisy(2.0))


def test_drift_cancels_in_paired_ratios():
    drift = [1 + 0.05 * i for i in range(40)]
    ratio = paired_ratio([2 * d for d in drift], drift)
    assert (ratio.low, ratio.high) == (2.0, 2.0)


@pytest.mark.parametrize(
    ("factor", "verdict"), [(2.0, "faster"), (0.5, "slower"), (1.005, "indistinguishable")]
)
def test_verdict_needs_more_than_noise(factor: float, verdict: str):
    ratio = paired_ratio(noisy(factor, seed=1), noisy(1.0, seed=2))
    assert judge(ratio, noise_of(paired_ratio(noisy(1.0, seed=3), noisy(1.0, seed=4)))) == verdict


def test_systematic_difference_of_a_program_to_itself_is_noise():
    ratio = paired_ratio([1.2] * 20, [1.0] * 20)
    assert judge(ratio, noise_of(paired_ratio([1.0] * 20, [1.3] * 20))) == "indistinguishable"


def test_geometric_mean():
    assert geometric_mean([2.0, 8.0]) == pytest.approx(4.0)


def test_floor_is_the_larger_of_arithmetic_and_traffic():
    ceilings = {"flops_per_s": 1e12, "bytes_per_s": 1e9}
    assert program_floor_ms({"flops": 5e9, "bytes": 1e6}, ceilings) == pytest.approx(5.0)
    assert program_floor_ms({"flops": 1e9, "bytes": 3e6}, ceilings) == pytest.approx(3.0)
    assert program_floor_ms({"flops": 1e9, "bytes": 3e6, "floor_ms": 7}, ceilings) == 7.0


def test_split_multiplies_to_the_speedup():
    programs = {
        "reference": {"flops": 0, "bytes": 8e6},
        "reference_fused": {"flops": 0, "bytes": 4e6},
        "optimized": {"flops": 0, "bytes": 1e6},
    }
    floor = floor_of(programs, {"bytes_per_s": 1e9}, eager_ms=10.0, ours_ms=1.25)
    assert floor is not None and floor.algebra is not None
    assert floor.algebra * floor.fusion * floor.implementation == pytest.approx(8.0)
    assert floor.fraction_of_floor == pytest.approx(0.8)


def test_faster_than_light_unless_the_cache_explains_it():
    programs = {"reference": {"bytes": 8e6}, "optimized": {"bytes": 1e6, "flops": 1e6}}
    ceilings = {"bytes_per_s": 1e9, "flops_per_s": 1e10}
    assert "memory traffic" in str(beats_light(programs, ceilings, 0.5, cache_bytes=1e5))
    assert beats_light(programs, ceilings, 0.5, cache_bytes=1e6) is None
    assert beats_light(programs, ceilings, 0.9, cache_bytes=1e5) is None
    assert "arithmetic" in str(beats_light(programs, ceilings, 0.04, cache_bytes=1e6))


def raw_samples(ours: float, host: float | None = None) -> dict[str, Any]:
    times = {"eager": noisy(1.0), "eager-again": noisy(1.0), "candidate": noisy(ours)}
    names = list(times)
    return {
        "reference": "r.py",
        "candidate": "c.py",
        "modes": ["cold"],
        "samples": {"cold": times},
        "host_ms": {"cold": {"candidate": [host] * 60}} if host else {},
        "arms": [{"name": n, "status": "ok", "first_call_s": 0.1} for n in names],
        "findings": [],
        "checks": {},
        "ceilings": {"bytes_per_s": 1e9},
        "imports": {},
        "sensors": {},
        "environment": {"device": "test", "cache_bytes": 1000},
    }


def test_faster_than_the_floor_is_a_finding_and_no_success():
    programs = {"reference": {"bytes": 1e6}, "optimized": {"bytes": 1e6}}
    report = build_report(raw_samples(0.5), programs)
    assert report.verdict == "invalid"
    assert [f.name for f in report.findings] == ["faster-than-floor"]


def test_work_that_events_do_not_see_is_a_finding():
    report = build_report(raw_samples(0.1, host=1.0), None)
    assert report.verdict == "invalid"
    assert [f.name for f in report.findings] == ["clock-mismatch"]


def test_a_short_wait_of_the_host_is_no_finding():
    assert build_report(raw_samples(0.01, host=0.03), None).findings == ()


def test_report_names_the_best_baseline_and_the_speedup():
    report = build_report(raw_samples(0.5), None)
    assert (report.verdict, report.best_baseline) == ("faster", "eager")
    found = report.to_json()
    assert found["speedup"]["eager"] == pytest.approx(2.0, rel=0.05)
    assert found["times_ms"]["candidate"] == pytest.approx(0.5, rel=0.05)
