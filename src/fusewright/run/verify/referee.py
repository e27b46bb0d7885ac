"""The reference's side: draws, expectations and judgements, as commands of the referee's worker.

The referee runs the reference file only, in a process that the candidate's never talks to. For most
points it computes what is right after the candidate has answered.
"""

import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from fusewright.run.verify import (
    drawing,
    hidden,
    judge,
    metrics,
    oracle,
    roundings,
    runner,
    specs,
    tensors,
    weights,
)
from fusewright.run.verify.arithmetic import Float64, round_in_place, round_tf32
from fusewright.run.verify.book import Book, Expectation, Point
from fusewright.run.verify.specs import Spec

# A reference that takes longer than this is evaluated with random rounding once, not twice.
_SLOW_S = 0.2
# Of a large problem one row in so many is judged, and all where the batch is smaller than this.
_SAMPLE_SHARE, _FEW_ROWS = 16, 64
# Batch slices at least, when the whole does not fit.
_SLICES_WHEN_FULL = 16


def expect(
    book: Book,
    name: str,
    weights: str,
    inputs: str,
    seed: int,
    train: bool,
    sampled: bool = False,
    after: Sequence[str] = (),
) -> Spec:
    """Evaluate the reference at a point, in its own arithmetic and in float64; keep the result.

    sampled: evaluate it on a random sample of the batch only (it must be separable along it).
    Reports eager's seconds, whether random numbers were drawn, what was changed besides the output,
    the output's structure, its aliases, and how the oracle was had ("float64", "float64 in n
    slices", or why there is none).
    """
    sample = draw_sample(book, inputs) if sampled else None
    point = book.points[name] = Point(weights, inputs, seed, train, sample, tuple(after))
    book.expectations.pop(name, None)
    report, expectation = _evaluate(book, point)
    keep(book, name, expectation)
    report["oracle"], report["changed"] = expectation.oracle, list(expectation.changed)
    report["sampled"] = sample is not None
    report["leaves"] = [
        {"path": e.path, "exact": e.exact, "eager": e.eager.norm, "bound": e.bound.norm}
        for e in expectation.expected.values()
    ]
    return report


def _evaluate(book: Book, point: Point) -> tuple[dict[str, Any], Expectation]:
    """The reference's report of a call at a point, and what follows from it."""
    prepare(book, "reference", point)
    state = drawing.weights(book, point.weights)
    plan = {"slot": "reference", "inputs": "point", "seed": point.seed, "prefix": None}
    with oracle.PeakMemory(book.session.device) as peak:
        report = runner.call(book.session, keep="eager", state=state, written=True, **plan)
    book.written.update(dict.fromkeys(report["effects"]["state"]["keys"]))
    if report["seconds"] > _SLOW_S:
        book.jittered_runs = 1
    eager = _eager_effects(book, report)
    # A mapping or a copy that nobody needs any more; the float64 runs need the memory.
    runner.drop_inputs(book.session, "point")
    changed = tuple(path for path in eager if not path.startswith("output"))
    report["finite"] = min((metrics.finite_share(t) for t in eager.values()), default=1.0)
    sharp = point.sample is not None
    found = expectation_from(book, point, eager, changed, report["rng"], peak.bytes, sharp)
    return report, replace(found, moved=tuple(_moved(report)))


def keep(book: Book, name: str, expectation: Expectation) -> None:
    """Remember an expectation; the oldest ones go when they hold more than oracle.KEPT_BYTES."""
    book.expectations[name] = expectation
    sizes = {n: e.byte_count for n, e in book.expectations.items()}
    for oldest in list(sizes)[:-1]:
        if sum(sizes.values()) <= oracle.KEPT_BYTES:
            break
        del sizes[oldest], book.expectations[oldest]


def expectation_of(book: Book, name: str) -> Expectation:
    """That of the point `name`, computed once more where it was not kept."""
    found = book.expectations.pop(name, None)
    keep(book, name, found or _evaluate(book, book.points[name])[1])
    return book.expectations[name]


def prepare(book: Book, slot: str, point: Point) -> None:
    """Give the module the point's state and mode, and put fresh inputs in place as `point`."""
    module = book.session.slots[slot]
    weights.set_state(book, slot, point.weights)
    runner.set_mode(book.session, module, point.train)
    for name in point.after:
        oracle.run(module, tensors.map_leaves(drawing.loaded(book, name), torch.clone), point.seed)
    if point.sample is None:
        runner.put(book.session, "point", drawing.inputs(book, point.inputs), "plain")
    else:
        book.session.inputs["point"] = fresh_inputs(book, point)
        book.session.sources["point"] = lambda: fresh_inputs(book, point)


def fresh_inputs(book: Book, point: Point) -> list[Any]:
    """The point's inputs, to be read only."""
    return tensors.take_sample(drawing.loaded(book, point.inputs), point.sample)


def draw_sample(book: Book, inputs: str) -> tensors.Sample | None:
    """Rows of a batch to stand for all: the first, the last, any that hold special values, and
    others by chance; None for all.

    Drawn from the system's entropy, so that no candidate can foresee it.
    """
    total = specs.batch_rows(drawing.inputs(book, inputs))
    if total < _FEW_ROWS:
        return None
    generator = torch.Generator().manual_seed(secrets.randbits(63))
    chance = torch.randperm(total, generator=generator)[: total // _SAMPLE_SHARE]
    fixed = torch.tensor([0, total - 1, *book.marked.get(inputs, [])])
    return tensors.Sample(total, torch.cat([fixed, chance]).unique())


def _eager_effects(book: Book, report: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Eager's outputs, and the inputs and state entries that the call changed, by path."""
    session = book.session
    effects = oracle.Effects(
        session.kept.pop("eager"),
        dict(tensors.tensor_leaves(session.inputs["point"])),
        hidden.full_state(session.slots["reference"]),
    )
    changed = {*_moved(report), *report["written"]}
    return {
        # What lives in the module or in the inputs will not stay as it is.
        path: tensor.detach().clone() if path in changed or report["aliases"] else tensor.detach()
        for path, tensor in effects.flat().items()
        if path in changed or path.startswith("output")
    }


def _moved(report: dict[str, Any]) -> list[str]:
    """Paths of the inputs and state entries that have other values after the call."""
    effects = report["effects"]
    return [f"input{k}" for k in effects["inputs"]["keys"]] + [
        f"state {k}" for k in effects["state"]["keys"]
    ]


def expectation_from(
    book: Book,
    point: Point,
    eager: dict[str, torch.Tensor],
    changed: tuple[str, ...],
    random: bool,
    peak: int,
    sharp: bool,
) -> Expectation:
    """Bounds for every tensor of `eager`, from float64 runs: whole, sliced, or none.

    sharp: only as far from float64 as eager itself; what else is allowed costs more runs.
    """
    fresh = fresh_inputs(book, point)
    scale = max((metrics.root_mean_square(t) for _, t in _floats(fresh)), default=1.0)
    rows = oracle.batch_rows(fresh)
    slices = _slices(book, fresh, eager, peak, rows)
    if slices == 1:
        try:
            return whole_expectation(book, point, fresh, eager, changed, random, scale, sharp)
        except oracle.OracleTooLarge:
            runner.release_memory(book.session.device)
    # Smaller slices cost little, and what else the runs hold is not in the estimate.
    slices = max(slices, min(rows, _SLICES_WHEN_FULL))
    try:
        return _sliced(book, point, fresh, eager, changed, random, slices, scale)
    except oracle.OracleUnavailable as reason:
        return _without_oracle(point, eager, changed, random, scale, str(reason))


def _slices(
    book: Book, inputs: list[Any], eager: dict[str, torch.Tensor], peak: int, rows: int
) -> int:
    """Into how many batch slices the float64 runs are cut for memory's sake.

    Cut are the inputs, the oracle's outputs, and one more run with all that it holds on the way;
    not so the weights, and as much for copies with rounded operands.
    """
    given, made = [t for _, t in tensors.tensor_leaves(inputs)], eager.values()
    width = 8 // metrics.UNIT_BYTES[roundings.base_dtype(book, inputs)]
    divisible = 2 * (8 * sum(t.numel() for t in (*given, *made)) + width * peak)
    state = 8 * sum(t.numel() for t in book.session.slots["reference"].state_dict().values())
    fixed = state if "wide" in book.session.slots else 2 * state
    return oracle.slices_needed(divisible, fixed, book.session.device, rows)


def whole_expectation(
    book: Book,
    point: Point,
    inputs: list[Any],
    eager: dict[str, torch.Tensor],
    changed: tuple[str, ...],
    random: bool,
    scale: float,
    sharp: bool = False,
) -> Expectation:
    """Expectation from float64 runs of the whole batch, or without an oracle where they fail.

    Raises OracleTooLarge where they fail for want of memory.
    """
    runs = roundings.wide_runs(book, point, inputs, not sharp, changed)
    try:
        wide = next(runs)
        expected = judge.expect(eager, slices_of_one(eager, wide, runs), True, scale)
    except oracle.OracleTooLarge:
        raise
    except oracle.OracleUnavailable as reason:
        return _without_oracle(point, eager, changed, random, scale, str(reason))
    return Expectation(point, expected, changed, random, "float64", wide, sharp=sharp)


def _without_oracle(
    point: Point,
    eager: dict[str, torch.Tensor],
    changed: tuple[str, ...],
    random: bool,
    scale: float,
    reason: str,
) -> Expectation:
    """Eager's own result in place of the oracle; what is far from it in float32 stays undecided."""
    as_double = {p: t.double() if t.is_floating_point() else t for p, t in eager.items()}
    expected = judge.expect(eager, slices_of_one(eager, as_double, ()), False, scale)
    return Expectation(point, expected, changed, random, reason, None)


def _floats(value: Any) -> list[tuple[str, torch.Tensor]]:
    return [(p, t) for p, t in tensors.tensor_leaves(value) if t.is_floating_point() and t.numel()]


def slices_of_one(
    eager: judge.Tensors, wide: judge.Tensors, others: Iterable[judge.Tensors]
) -> judge.Slices:
    """All rows at once; `others` can be had a single time."""
    return lambda allowed: [judge.Slice(0, eager, wide, others if allowed else ())]


def _sliced(
    book: Book,
    point: Point,
    inputs: list[Any],
    eager: dict[str, torch.Tensor],
    changed: tuple[str, ...],
    random: bool,
    slices: int,
    scale: float,
) -> Expectation:
    """Expectation whose float64 parts are computed slice by slice, each time they are needed.

    Raises OracleUnavailable where the reference is not separable along the batch.
    """
    rows = oracle.batch_rows(inputs)
    size = -(-rows // slices)
    outputs = {path: t for path, t in eager.items() if path.startswith("output")}
    module = book.session.slots["reference"]
    if (
        size >= rows
        or changed
        or random
        or not oracle.is_separable(
            lambda part: oracle.run(module, part, point.seed).output, inputs, outputs, rows, size
        )
    ):
        raise oracle.OracleUnavailable(
            f"a float64 run needs more memory than is free, and the reference cannot be cut along "
            f"its batch into {slices} slices"
        )

    expected = judge.expect(outputs, cut(book, point, outputs, size, None), True, scale)
    found = Expectation(point, expected, changed, random, f"float64 in {slices} slices", None)
    return replace(found, rows=size)


def cut(
    book: Book, point: Point, outputs: judge.Tensors, size: int, seeds: range | None
) -> judge.Slices:
    """Slices of `size` rows of the batch, with what is allowed by itself or draws at `seeds`."""

    def pieces(allowed: bool) -> Iterator[judge.Slice]:
        # Asked for again each time: what they lie in may have been let go of since.
        given = fresh_inputs(book, point)
        rows = oracle.batch_rows(given)
        for start in range(0, rows, size):
            stop = min(rows, start + size)
            part = oracle.take_rows(given, rows, start, stop)
            runs = roundings.wide_runs(book, point, part, allowed and seeds is None)
            mine, right = {path: t[start:stop] for path, t in outputs.items()}, next(runs)
            drawn = roundings.drawn_runs(book, point, part, seeds or range(0))
            yield judge.Slice(start, mine, right, drawn if seeds and allowed else runs)

    return pieces


def read(book: Book, leaf: Spec) -> torch.Tensor:
    """A tensor that the candidate's process handed over."""
    return tensors.read(leaf, book.session.lender)


def release(book: Book, name: str) -> None:
    """Forget a point; its float64 outputs stay as an example of an answer to other inputs."""
    expectation = book.expectations.pop(name, None)
    if expectation is not None and expectation.wide is not None:
        book.stale = expectation.wide
    runner.release_memory(book.session.device)


def classify(book: Book, name: str, norm: float) -> str:
    """The accuracy class of an output error `norm` at a point."""
    expectation = testable(book, expectation_of(book, name))
    point, inputs = expectation.point, inputs_of(book, expectation)
    floats = {
        p: e for p, e in expectation.expected.items() if p.startswith("output") and not e.exact
    }
    mode = Float64(roundings.base_dtype(book, inputs), round_tf32)
    rounded = roundings.wide_run(
        book, point, inputs, mode, lambda _, t: round_in_place(round_tf32, t)
    )
    tf32 = max((judge.judge_values(rounded[p], e).norm for p, e in floats.items()), default=0.0)
    eager = max((e.eager.norm for e in floats.values()), default=0.0)
    bound = max((e.bound.norm for e in floats.values()), default=0.0)
    return metrics.accuracy_class(norm, eager, bound, max(2.0 * tf32, 2.0**-11))


def testable(book: Book, expectation: Expectation) -> Expectation:
    """The expectation itself, or that of its first batch slice where it is only known in slices."""
    if expectation.wide is not None or not expectation.oracle.startswith("float64 in"):
        return expectation
    point = expectation.point
    inputs = fresh_inputs(book, point)
    rows = oracle.batch_rows(inputs)
    first = next(iter(expectation.expected.values()))
    size = next(first.parts()).oracle.shape[0]
    piece = oracle.take_rows(inputs, rows, 0, size)
    eager = oracle.run(book.session.slots["reference"], piece, point.seed).flat()
    outputs = {p: t for p, t in eager.items() if p.startswith("output")}
    whole = whole_expectation(book, point, piece, outputs, (), False, first.rms)
    whole.cut = size
    return whole


def inputs_of(book: Book, expectation: Expectation) -> list[Any]:
    """The point's inputs, cut to the rows that the expectation is about."""
    inputs = fresh_inputs(book, expectation.point)
    if expectation.cut is None:
        return inputs
    return oracle.take_rows(inputs, oracle.batch_rows(inputs), 0, expectation.cut)


def set_precision(book: Book, precision: str) -> None:
    book.precision = precision


def default_device(_: Book) -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def device(book: Book) -> str:
    return book.session.device.type


COMMANDS = {
    "default_device": default_device,
    "device": device,
    "set_precision": set_precision,
    "expect": expect,
    "release": release,
    "classify": classify,
}
