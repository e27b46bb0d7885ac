"""Checks of values: the given inputs, other distributions, and what those checks are able to see.

Runs in the verifier's process; the arithmetic is done by the referee.
"""

from fusewright.run.verify import randomness, specs
from fusewright.run.verify.isolate import WorkerRaised
from fusewright.run.verify.report import ErrorSummary
from fusewright.run.verify.structure import brief, with_room
from fusewright.run.verify.trial import Finding, Point, Trial, describe, finite

# (inputs, weights): every kind of draw once, with moderate and with heavy-tailed weights; those of
# the same weights together, so that no others need be kept.
_DISTRIBUTIONS = (
    ("heavy", "heavy-3"),
    ("large", "heavy-3"),
    ("shifted", "offset-5"),
    ("negative", "random-2"),
    ("small", "random-2"),
    ("normal", "random-1"),
    ("ties", "random-1"),
)
_IF_SLOW = ("heavy", "shifted", "negative")
# Seeds of the distributions, from this on; those below it belong to the given inputs.
_FIRST_SEED = 1000
# Of these every row is judged, also of a large problem.
_WHOLE = ("heavy",)
# Drawn only when something could not be told apart with the ones above.
_ESCALATION = (
    ("heavy", "heavy-4"),
    ("normal", "random-6"),
    ("shifted", "offset-8"),
    ("small", "small-10"),
)
# Where a call takes longer than this, one more given input and a few distributions are tried.
_SLOW_S = 0.2
# Inputs and outputs of more bytes than this are judged on a sample of the batch, if that can be.
LARGE_BYTES = 16 << 20


def judge_first_call(trial: Trial, point: Point, report: dict) -> None:
    """Outputs, buffers and inputs after the first call, each a check of its own."""
    found = trial.judge(point, report)
    outputs = [f for f in found if f["path"].startswith("output")]
    if trial.expect(point)["rng"] and any(f["ok"] is False for f in outputs):
        outputs = randomness.other_stream(trial, point, outputs)
    else:
        trial.errors += outputs
        judge_precision(trial, point, outputs)
    failing = any(f["ok"] is False for f in outputs)
    trial.tell("values/given", outputs, smallest_failing(trial, point) if failing else "")
    trial.tell("buffers", [f for f in found if f["path"].startswith("state")])
    trial.tell("inputs-unchanged", [f for f in found if f["path"].startswith("input")])
    note_hidden(trial, point, report)
    if report["rng"] and not trial.expect(point)["rng"]:
        trial.add("random-state", "fail", "forward draws from, or reseeds, a global generator")
    elif report["rng_after"] != trial.expect(point)["rng_after"] and not trial.other_stream:
        text = "the generator goes on elsewhere than after the reference: as if more were drawn"
        trial.add("random-state", "warn", text)


def note_hidden(trial: Trial, point: Point, report: dict) -> None:
    """Buffers beside the state_dict that the reference writes: what both write is drawn with the
    weights; what the candidate does not write may be a memo, unless `consecutive-calls` fails."""
    changed = [f"state {name}" for name in trial.hidden]
    changed = [path for path in changed if path in trial.expect(point)["changed"]]
    ours = {f"state {name}" for name in report["effects"]["state"]["keys"]}
    trial.remembers = bool(changed)
    both = [path.removeprefix("state ") for path in changed if path in ours]
    trial.ask_referee("redraw_beside", names=both)
    if len(both) < len(changed):
        names = ", ".join(path for path in changed if path not in ours)
        text = f"{names}: not written here, as the reference does (no state_dict holds it)"
        trial.add("buffers-beside", "warn", text)


def note_cost(trial: Trial, point: Point, report: dict) -> None:
    """What can be afforded: how many distributions, and whether all rows of a batch."""
    expected = trial.expect(point)
    size = sum(specs.byte_count(s) for s in (trial.inputs[point.inputs], expected["output"]))
    slow = expected["seconds"] > _SLOW_S
    if slow or size > LARGE_BYTES:
        trial.sampling = trial.ask_referee("is_separable", name=point.name)
    trial.slow_reference = slow and not trial.sampling
    trial.slow = report["seconds"] > _SLOW_S or trial.slow_reference


def judge_precision(trial: Trial, point: Point, outputs: list[Finding]) -> None:
    """Name the accuracy class of the outputs; one below what was allowed fails."""
    floats = [f for f in outputs if not f["exact"] and finite(f["norm"])]
    if not floats:
        return
    worst = max(floats, key=lambda f: f["norm"])
    if all(f["ok"] is not False for f in floats):
        better = all(f["norm"] <= f["eager"] for f in floats)
        dtype = specs.tensors(trial.expect(point)["output"])[0][1]["dtype"]
        trial.accuracy = "more accurate than the reference" if better else f"{dtype} class"
        return
    trial.accuracy = trial.ask_referee("classify", name=point.name, norm=worst["norm"])
    if trial.accuracy in ("TF32 class", "half class"):
        allowed = trial.settings.precision
        trial.add(
            "precision", "fail", f"{trial.accuracy}, which precision {allowed} does not allow"
        )


def distribution_checks(trial: Trial) -> None:
    """The values at every distribution; each also asks which null candidates it can tell apart."""
    # A first call may compile: what a file is slow at is its fastest call.
    slow = trial.slow = trial.slow_reference or trial.fastest_s > _SLOW_S
    seeds = min(trial.settings.seeds, 2) if slow else trial.settings.seeds
    for seed in range(1, seeds):
        trial.draw_inputs(f"given-{seed}", "given", seed)
        trial.draw_weights(f"random-{seed}", "random", seed)
        distribution(trial, f"given-{seed}", f"random-{seed}", seed)
    before = ""
    for seed, (inputs, weights) in enumerate(_DISTRIBUTIONS, _FIRST_SEED):
        if slow and inputs not in _IF_SLOW:
            continue
        if before not in ("", weights):
            trial.forget_weights(before)
        trial.draw_weights(weights, *weights_recipe(weights))
        distribution(trial, inputs, weights, seed)
        before = weights


def weights_recipe(name: str) -> tuple[str, int]:
    """Kind and seed of weights such as "heavy-3"."""
    kind, seed = name.split("-")
    return kind, int(seed)


def distribution(trial: Trial, inputs: str, weights: str, seed: int) -> None:
    """One point: compare there, then try the null candidates there."""
    name, kind = f"values/{inputs}", inputs.split("-")[0]
    trial.progress(name)
    if trial.overdue():
        trial.leave_open(name, "no time was left")
        return
    trial.draw_inputs(inputs, kind, seed)
    point = Point(weights, inputs, trial.training, whole=inputs in _WHOLE)
    try:
        found = with_room(trial, lambda: trial.evaluate(point))
    except WorkerRaised as failure:
        if failure.out_of_memory:
            trial.leave_open(name, brief(failure))
        elif failure.role == "referee":
            trial.add(name, "skip", f"the reference does not take such inputs: {brief(failure)}")
        else:
            trial.add(name, "fail", f"ModelNew raises {brief(failure)}")
        return
    if trial.expect(point)["finite"] < 0.5:
        name += " (mostly NaN or Inf)"
    trial.errors += found
    tell_values(trial, name, kind, found, point)
    note_power(trial, point)
    trial.release(point)
    trial.forget_inputs(inputs)


def tell_values(trial: Trial, name: str, kind: str, found: list[Finding], point: Point) -> None:
    """Ties may be broken differently where an index is the output: a warning there."""
    wrong = [f for f in found if f["ok"] is False]
    if kind == "ties" and wrong and all(f["exact"] for f in wrong):
        trial.add(name, "warn", "another choice among equal values: " + describe(wrong))
    else:
        trial.tell(name, found, smallest_failing(trial, point) if wrong else "")


def smallest_failing(trial: Trial, point: Point) -> str:
    """The command that repeats a wrong answer, at the smallest batch size that still shows it.

    Sizes 1, 2, 4, ... are tried on a fresh module; a size that either side refuses is passed over.
    """
    kind, seed = trial.recipes[point.inputs].split(":")[:2]
    for rows in (1, 2, 4, 8):
        small = Point(point.weights, f"{point.inputs}-of-{rows}", point.train, point.seed)
        try:
            trial.draw_inputs(small.inputs, kind, int(seed), rows)
            trial.construct("small")
            wrong = any(f["ok"] is False for f in trial.evaluate(small, "small"))
        except WorkerRaised:
            continue
        trial.release(small)
        if wrong:
            return trial.replay_command(small)
    return trial.replay_command(point)


def note_power(trial: Trial, point: Point) -> None:
    """Try all null candidates that no point has told apart yet."""
    known = [name for name, record in trial.nulls.items() if record["status"] == "rejected"]
    for record in trial.ask_referee("nulls", name=point.name, known=known):
        old = trial.nulls.get(record["name"])
        order = ("identical", "coarse", "undetected", "rejected")
        if old is None or order.index(record["status"]) > order.index(old["status"]):
            trial.nulls[record["name"]] = record


def power_checks(trial: Trial) -> None:
    """Every wrong candidate derived from the reference must have been rejected at some point."""
    for inputs, weights in _ESCALATION:
        if not unseen(trial):
            break
        kind, seed = weights_recipe(weights)
        trial.draw_weights(weights, kind, seed)
        distribution(trial, f"{inputs}-{seed}", weights, _FIRST_SEED + seed)
        trial.forget_weights(weights)
    left = unseen(trial)
    if left:
        text = "cannot be told from the reference: " + "; ".join(left[:5])
        trial.undecided.append(text)
        trial.add("power", "warn", text)
        return
    rejected, same, coarse = (
        [name for name, r in trial.nulls.items() if r["status"] == status]
        for status in ("rejected", "identical", "coarse")
    )
    detail = f"{len(rejected)} wrong candidates derived from the reference would be rejected"
    if same:
        detail += f"; of no effect on any output: {', '.join(same[:5])}"
    if coarse:
        detail += f"; no coarser than the reference itself: {', '.join(coarse[:5])}"
    trial.add("power", "pass", detail)


def unseen(trial: Trial) -> list[str]:
    """Null candidates that passed everywhere although they differ, and, where no output depends on
    the input at any draw, those that ignore it. One constant output among others is only noted."""
    undetected = [
        f"{name} (differs by {record['size']:.2g}, allowed {record['bound']:.2g})"
        for name, record in trial.nulls.items()
        if record["status"] == "undetected"
    ]
    ignoring = {name: r for name, r in trial.nulls.items() if r["essential"]}
    constant = [name for name, r in ignoring.items() if r["status"] == "identical"]
    if {ignoring[name]["path"] for name in constant} != {r["path"] for r in ignoring.values()}:
        return undetected
    return undetected + [f"{name} (the reference gives that at every draw)" for name in constant]


def accuracy(trial: Trial) -> str:
    """The class found at the given inputs, unless the values at other points are wrong."""
    others = [c for c in trial.checks if c.outcome == "fail" and c.name.startswith("values/")]
    return "" if any(c.name != "values/given" for c in others) else trial.accuracy


def summary(trial: Trial) -> ErrorSummary:
    """Worst errors over all points; the detectable error of the output seen least sharply."""
    floats = [f for f in trial.errors if not f["exact"] and f["path"].startswith("output")]
    floats = [f for f in floats if finite(f["norm"])]
    if not floats:
        return ErrorSummary()
    best: dict[str, float] = {}
    for f in floats:
        best[f["path"]] = min(best.get(f["path"], f["bound"]), f["bound"])
    return ErrorSummary(
        max(f["eager"] for f in floats), max(f["norm"] for f in floats), max(best.values())
    )
