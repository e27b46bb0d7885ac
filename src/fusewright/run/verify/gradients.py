"""Gradients of the reference, in its own arithmetic and in float64, as commands of the referee."""

import secrets
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from fusewright.run.verify import (
    backward,
    drawing,
    judge,
    metrics,
    oracle,
    referee,
    roundings,
    runner,
    specs,
    tensors,
    weights,
)
from fusewright.run.verify.arithmetic import Float64, Jitter
from fusewright.run.verify.book import Book, Point
from fusewright.run.verify.judge import Expected
from fusewright.run.verify.specs import Spec

_SLACK = 10.0
# Of a large problem the gradients of one output row in so many are looked at.
_COMB = 16


def expect_gradients(
    book: Book, weights: str, inputs: str, seed: int, train: bool, sampled: bool
) -> dict[str, Any]:
    """Evaluate backward.gradients on the reference; the report has the `names` for which gradients
    flow, and the `outputs` from which: none where nothing is differentiable.

    sampled: of the outputs only the rows of a comb count, which the report names as `rows`: then a
    reference that is separable along the batch need not see the others.
    The float64 gradients are computed too; where that fails, eager's stand in for them.
    """
    comb = _draw_comb(book, inputs) if sampled else None
    sample = comb and tensors.Sample(comb.total, comb.rows)
    point = Point(weights, inputs, seed, train, sample)
    book.gradients, book.gradient_draws = {}, 0
    book.comb, book.gradient_point = comb, point
    eager, outputs = _eager(book, point)
    if not outputs or not eager:
        return {"outputs": [], "names": [], "rows": None}
    runner.drop_inputs(book.session, "point")
    book.gradients = _expected(eager, _wide_gradients(book, point, comb))
    rows = [comb.total, comb.first, comb.step] if comb else None
    return {"outputs": outputs, "names": list(eager), "rows": rows}


def flowing(book: Book, watch: backward.Watch) -> list[str]:
    """The names for which gradients flow through the reference where not all are asked for, at the
    point of the last `expect_gradients`."""
    assert book.gradient_point is not None
    names = list(_eager(book, book.gradient_point, watch)[0])
    runner.drop_inputs(book.session, "point")
    return names


def _eager(
    book: Book, point: Point, watch: backward.Watch = "all"
) -> tuple[dict[str, torch.Tensor], list[str]]:
    referee.prepare(book, "reference", point)
    module, given = book.session.slots["reference"], book.session.inputs["point"]
    return backward.gradients(module, given, point.seed, book.comb, watch)


def _draw_comb(book: Book, inputs: str) -> backward.Comb:
    return backward.Comb(
        specs.batch_rows(drawing.inputs(book, inputs)), secrets.randbelow(_COMB), _COMB
    )


def _wide_gradients(
    book: Book, point: Point, comb: backward.Comb | None
) -> Iterator[dict[str, torch.Tensor]]:
    """Float64 gradients by name: exact, randomly rounded, in allowed arithmetic, each computed when
    it is asked for. Raises OracleUnavailable or RuntimeError where they cannot be had."""
    base = roundings.base_dtype(book, referee.fresh_inputs(book, point))
    allowed = roundings.allowed_roundings(book.precision, book.session.device)
    yield _wide(book, point, comb, Float64(base))
    for seed in range(book.jittered_runs - 1):
        jitter = Jitter(metrics.UNIT_ROUNDOFF[base], seed)
        yield _wide(book, point, comb, Float64(base, jitter=jitter), jitter.edit)
    for rounding, ops in allowed:
        yield _wide(book, point, comb, Float64(base, rounding, ops))


def _drawn_gradients(
    book: Book, point: Point, comb: backward.Comb | None, seeds: range
) -> Iterator[dict[str, torch.Tensor]]:
    """As roundings.drawn_runs, of gradients."""
    base = roundings.base_dtype(book, referee.fresh_inputs(book, point))
    for seed in seeds:
        start, (mode, jitter) = time.perf_counter(), roundings.draw(book, base, seed)
        made = _wide(book, point, comb, mode, jitter.edit)
        book.draw_seconds += time.perf_counter() - start
        yield made


def _wide(
    book: Book,
    point: Point,
    comb: backward.Comb | None,
    mode: Float64,
    edit: oracle.Edit | None = None,
) -> dict[str, torch.Tensor]:
    module = weights.wide_module(book, point.weights, point.train)
    if edit is not None:
        oracle.edit_state(module, edit)
    inputs = oracle.widen_inputs(referee.fresh_inputs(book, point), edit)
    with oracle.float64_arithmetic(mode):
        return backward.gradients(module, inputs, point.seed, comb)[0]


def _expected(eager: judge.Tensors, runs: Iterator[judge.Tensors]) -> dict[str, Expected]:
    """Gradients are held to _SLACK times what an output would be: no accuracy class is promised.

    Where the float64 runs fail, eager's own stand in for them.
    """
    try:
        right = next(runs)
        known = {name: gradient for name, gradient in eager.items() if name in right}
        return judge.expect(known, referee.slices_of_one(known, right, runs), True, 1.0, _SLACK)
    except (oracle.OracleUnavailable, RuntimeError):
        right = {name: oracle.widened(gradient) for name, gradient in eager.items()}
        return judge.expect(eager, referee.slices_of_one(eager, right, ()), False, 1.0, _SLACK)


def judge_gradients(
    book: Book, spec: Spec, names: list[str], patient: bool = True
) -> list[dict[str, Any]]:
    """Findings for a candidate's gradients: those of `names` flow through the reference; one that
    is missing is wrong, and so is another, unless it is zero.

    patient: as in answers.judge_call.
    """
    got = {name: _rows(book, name, leaf) for name, leaf in zip(spec["keys"], spec["items"])}
    found = _judge(book, got, names)
    while patient and roundings.worth_drawing(book, book.gradients, book.gradient_draws, found):
        if roundings.out_of_time(book):
            found = [f.undecided(roundings.NO_TIME) for f in found]
            break
        _draw(book, roundings.next_seeds(book.gradient_draws))
        found = _judge(book, got, names)
    named = [replace(f, path=f"gradient of {f.path}") for f in found]
    return [finding.to_json() for finding in named]


def forget_gradients(book: Book) -> None:
    """What was expected is needed no more."""
    book.gradients = {}


def _rows(book: Book, name: str, leaf: Spec) -> torch.Tensor:
    """A gradient that the candidate handed over, of an input those rows that are looked at."""
    tensor = referee.read(book, leaf).to(book.session.device)
    if book.comb and name.startswith("input") and tensor.shape[:1] == (book.comb.total,):
        return tensor[book.comb.first :: book.comb.step]
    return tensor


def _judge(book: Book, got: dict[str, torch.Tensor], names: list[str]) -> list[judge.Finding]:
    lost = [judge.Finding(name, False, "does not flow") for name in names if name not in got]
    extra = [name for name in got if name not in names and bool(got[name].count_nonzero())]
    more = [judge.Finding(n, False, "flows, as it does not in the reference") for n in extra]
    held = [name for name in names if name in got and name in book.gradients]
    return [*(judge.judge(got[name], book.gradients[name]) for name in held), *lost, *more]


def _draw(book: Book, seeds: range) -> None:
    """Widen what is expected by further random roundings."""
    assert book.gradient_point is not None
    first = {name: (e, next(e.parts())) for name, e in book.gradients.items()}
    eager = {name: judge.as_given(e, part.eager) for name, (e, part) in first.items()}
    right = {name: judge.as_given(e, part.oracle) for name, (e, part) in first.items()}
    drawn = _drawn_gradients(book, book.gradient_point, book.comb, seeds)
    slices = referee.slices_of_one(eager, right, drawn)
    book.gradients = judge.with_draws(book.gradients, slices, _SLACK)
    book.gradient_draws = seeds.stop


COMMANDS = {
    "expect_gradients": expect_gradients,
    "flowing": flowing,
    "judge_gradients": judge_gradients,
    "forget_gradients": forget_gradients,
}
