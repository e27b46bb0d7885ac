"""Gradients of the reference, in its own arithmetic and in float64, as commands of the referee."""

import secrets
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from fusewright.run.verify import (
    drawing,
    judge,
    metrics,
    oracle,
    referee,
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
    """Evaluate runner.backward on the reference; `outputs` 0 means that nothing is differentiable.

    sampled: of the outputs only the rows of a comb count, which the report names as `rows`: then a
    reference that is separable along the batch need not see the others.
    The float64 gradients are computed too; where that fails, eager's stand in for them.
    """
    comb = _draw_comb(book, inputs) if sampled else None
    sample = comb and tensors.Sample(comb.total, comb.rows)
    point = Point(weights, inputs, seed, train, sample)
    referee.prepare(book, "reference", point)
    eager, count = runner.gradients(
        book.session.slots["reference"], book.session.inputs["point"], seed, comb
    )
    book.gradients, book.comb = {}, comb
    if not count or not eager:
        return {"outputs": 0, "rows": None}
    runner.drop_inputs(book.session, "point")
    book.gradients = _expected(eager, _wide_gradients(book, point, comb))
    rows = [comb.total, comb.first, comb.step] if comb else None
    return {"outputs": count, "rows": rows}


def _draw_comb(book: Book, inputs: str) -> runner.Comb:
    return runner.Comb(
        specs.batch_rows(drawing.inputs(book, inputs)), secrets.randbelow(_COMB), _COMB
    )


def _wide_gradients(
    book: Book, point: Point, comb: runner.Comb | None
) -> Iterator[dict[str, torch.Tensor]]:
    """Float64 gradients by name: exact, randomly rounded, in allowed arithmetic, each computed when
    it is asked for. Raises OracleUnavailable or RuntimeError where they cannot be had."""
    base = referee.base_dtype(book, referee.fresh_inputs(book, point))
    jitter = Jitter(metrics.UNIT_ROUNDOFF[base], point.seed, book.session.device)
    allowed = referee.allowed_roundings(book.precision, book.session.device)
    modes = [Float64(base), Float64(base, jitter=jitter)][: book.jittered_runs]
    modes += [Float64(base, rounding, ops) for rounding, ops in allowed]
    for mode in modes:
        module = weights.wide_module(book, point.weights, point.train)
        inputs = oracle.widen_inputs(referee.fresh_inputs(book, point))
        with oracle.float64_arithmetic(mode):
            made = runner.gradients(module, inputs, point.seed, comb)[0]
        yield made


def _expected(eager: judge.Tensors, runs: Iterator[judge.Tensors]) -> dict[str, Expected]:
    """Gradients are held to _SLACK times what an output would be: no accuracy class is promised.

    Where the float64 runs fail, eager's own stand in for them.
    """
    try:
        right = next(runs)
        known = {name: gradient for name, gradient in eager.items() if name in right}
        return judge.expect(known, referee.slices_of_one(known, right, runs), True, 1.0, _SLACK)
    except (oracle.OracleUnavailable, RuntimeError):
        right = {name: gradient.double() for name, gradient in eager.items()}
        return judge.expect(eager, referee.slices_of_one(eager, right, ()), False, 1.0, _SLACK)


def judge_gradients(book: Book, spec: Spec) -> list[dict[str, Any]]:
    """Findings for a candidate's gradients, by name; one that is missing is wrong."""
    got = dict(zip(spec["keys"], spec["items"]))
    found: list[judge.Finding] = []
    for name, expected in book.gradients.items():
        expected = replace(expected, path=f"gradient of {name}")
        if name not in got:
            found.append(judge.Finding(expected.path, False, "does not flow"))
            continue
        tensor = referee.read(book, got[name])
        if book.comb and name.startswith("input") and tensor.shape[:1] == (book.comb.total,):
            tensor = tensor[book.comb.first :: book.comb.step]
        found.append(judge.judge(tensor.to(book.session.device), expected))
    book.gradients = {}
    return [finding.to_json() for finding in found]


COMMANDS = {"expect_gradients": expect_gradients, "judge_gradients": judge_gradients}
