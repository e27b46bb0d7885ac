"""Gradients of the reference, in its own arithmetic and in float64, as commands of the referee."""

import secrets
from typing import Any

import torch

from fusewright.run.verify import judge, metrics, oracle, referee, runner, specs, tensors
from fusewright.run.verify.arithmetic import Float64, Jitter
from fusewright.run.verify.book import Book, Point
from fusewright.run.verify.judge import Expected, Part
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
    runs = _wide_gradients(book, point, comb)
    for name, gradient in eager.items():
        if all(name in run for run in runs):
            book.gradients[name] = _expected(name, gradient, [run[name] for run in runs])
    rows = [comb.total, comb.first, comb.step] if comb else None
    return {"outputs": count, "rows": rows}


def _draw_comb(book: Book, inputs: str) -> runner.Comb:
    return runner.Comb(specs.batch_rows(book.draws[inputs]), secrets.randbelow(_COMB), _COMB)


def _wide_gradients(
    book: Book, point: Point, comb: runner.Comb | None
) -> list[dict[str, torch.Tensor]]:
    """Float64 gradients by name: exact, randomly rounded, in allowed arithmetic. Empty where
    they cannot be had."""
    base = referee.base_dtype(book, referee.fresh_inputs(book, point))
    jitter = Jitter(metrics.UNIT_ROUNDOFF[base], point.seed, book.session.device)
    allowed = referee.allowed_roundings(book.precision, book.session.device)
    modes = [Float64(base), Float64(base, jitter=jitter)][: book.jittered_runs]
    modes += [Float64(base, rounding, ops) for rounding, ops in allowed]
    runs: list[dict[str, torch.Tensor]] = []
    try:
        for mode in modes:
            module = referee.wide_module(book, point.weights).train(point.train)
            inputs = oracle.widen_inputs(referee.fresh_inputs(book, point))
            with oracle.float64_arithmetic(mode):
                runs.append(runner.gradients(module, inputs, point.seed, comb)[0])
    except (oracle.OracleUnavailable, RuntimeError):
        return []
    return runs


def _expected(name: str, gradient: torch.Tensor, wide: list[torch.Tensor]) -> Expected:
    """A gradient is held to _SLACK times what an output would be: no accuracy class is promised."""
    right, *allowed = wide or [gradient.double()]
    part = Part.of(0, gradient, right, allowed)
    path, has_oracle = f"gradient of {name}", bool(wide)
    return judge.expect(path, gradient, lambda _: iter([part]), has_oracle, 1.0, _SLACK)


def judge_gradients(book: Book, spec: Spec) -> list[dict[str, Any]]:
    """Findings for a candidate's gradients, by name; one that is missing is wrong."""
    got = dict(zip(spec["keys"], spec["items"]))
    found: list[judge.Finding] = []
    for name, expected in book.gradients.items():
        if name not in got:
            found.append(judge.Finding(expected.path, False, "does not flow"))
            continue
        tensor = referee.read(book, got[name])
        if book.comb and name.startswith("input") and tensor.shape[:1] == (book.comb.total,):
            tensor = tensor[book.comb.first :: book.comb.step]
        found.append(judge.judge(tensor.to(book.session.device), expected))
    return [finding.to_json() for finding in found]


COMMANDS = {"expect_gradients": expect_gradients, "judge_gradients": judge_gradients}
