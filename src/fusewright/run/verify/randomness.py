"""What to do with a candidate whose random numbers are not the reference's: a declared test.

The same seed giving the same numbers is checked first, by comparing values. Only where that fails
are both run at many seeds and compared as distributions. Runs in the verifier's process.
"""

from fusewright.run.verify.trial import Finding, Point, Trial, describe

_SAMPLES = 40


def other_stream(trial: Trial, point: Point, outputs: list[Finding]) -> list[Finding]:
    """Compare as distributions at `point`; on success go on in the mode that draws nothing.

    Returns the findings that still count: none where the distributions agree.
    """
    seeds = list(range(100, 100 + _SAMPLES))
    for seed in seeds:
        trial.ensure_weights("main", point.weights)
        report = trial.call("main", point.inputs, seed=seed)
        trial.ask_referee("sample_add", owner="candidate", output=report["output"])
        trial.discard(report["output"])
    trial.ask_referee(
        "sample_reference",
        weights=point.weights,
        inputs=point.inputs,
        train=point.train,
        seeds=seeds,
    )
    found = trial.ask_referee("compare_samples")
    wrong = [f for f in found if not f["ok"]]
    if wrong:
        trial.add("random-distribution", "fail", f"over {_SAMPLES} seeds: {describe(wrong)}")
        return outputs
    trial.add(
        "random-distribution",
        "warn",
        f"other random numbers from the same seed; over {_SAMPLES} seeds the distributions agree "
        f"({describe(found)})",
    )
    _go_on_without_randomness(trial, point)
    return []


def _go_on_without_randomness(trial: Trial, point: Point) -> None:
    """All further checks are made in eval mode, if the reference draws nothing there."""
    quiet = Point(point.weights, point.inputs, False, point.seed)
    if trial.expect(quiet)["rng"]:
        trial.undecided.append("the reference is random in eval mode too")
        return
    trial.training, trial.other_stream = False, True
