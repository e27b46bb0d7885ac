"""Gradients of the reference, in its own arithmetic and in float64, as commands of the referee."""

from typing import Any

import torch

from fusewright.run.verify import judge, metrics, oracle, referee, runner, tensors
from fusewright.run.verify.judge import Expected, Part
from fusewright.run.verify.referee import Book, Point
from fusewright.run.verify.specs import Spec


def expect_gradients(
    book: Book, weights: str, inputs: str, seed: int, train: bool
) -> dict[str, Any]:
    """Evaluate runner.backward on the reference; `outputs` 0 means that nothing is differentiable.

    The float64 gradients are computed too; where that fails, eager's stand in for them.
    """
    point = Point(weights, inputs, seed, train)
    referee.prepare(book, "reference", point)
    eager, count = runner.gradients(
        book.session.slots["reference"], book.session.inputs["point"], seed
    )
    book.gradients = {}
    if not count or not eager:
        return {"outputs": 0}
    wide, found = _wide_gradients(book, point)
    for name, gradient in eager.items():
        right = wide.get(name, gradient.double()) if found else gradient.double()
        book.gradients[name] = _expected(name, gradient, right, found)
    return {"outputs": count}


def _wide_gradients(book: Book, point: Point) -> tuple[dict[str, torch.Tensor], bool]:
    """(float64 gradients by name, whether they could be had)."""
    try:
        module = referee.wide_module(book, point.weights).train(point.train)
        inputs = referee.fresh_inputs(book, point)
        base = oracle.base_dtype(book.session.slots["reference"], inputs)
        with oracle.float64_arithmetic(base):
            found, _ = runner.gradients(module, oracle.widen_inputs(inputs), point.seed)
    except (oracle.OracleUnavailable, RuntimeError):
        return {}, False
    return found, True


def _expected(name: str, gradient: torch.Tensor, right: torch.Tensor, has_oracle: bool) -> Expected:
    part = Part(0, metrics.as_real(gradient), metrics.as_real(right))
    scale = 1.0
    return judge.expect(f"gradient of {name}", gradient, lambda: iter([part]), has_oracle, scale)


def judge_gradients(book: Book, spec: Spec) -> list[dict[str, Any]]:
    """Findings for a candidate's gradients, by name; one that is missing is wrong."""
    got = dict(zip(spec["keys"], spec["items"]))
    found: list[judge.Finding] = []
    for name, expected in book.gradients.items():
        if name not in got:
            found.append(judge.Finding(expected.path, False, "does not flow"))
            continue
        tensor = tensors.read(got[name]).to(book.session.device)
        found.append(judge.judge(tensor, expected))
    return [finding.to_json() for finding in found]


COMMANDS = {"expect_gradients": expect_gradients, "judge_gradients": judge_gradients}
