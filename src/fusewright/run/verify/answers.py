"""Answers of the candidate held against what is expected, as commands of the referee: first by the
bounds that are known, then by more and more of what would be as right.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from fusewright.run.verify import (
    drawing,
    judge,
    layouts,
    oracle,
    referee,
    roundings,
    runner,
    specs,
    tensors,
)
from fusewright.run.verify.book import Book, Expectation
from fusewright.run.verify.judge import Finding
from fusewright.run.verify.specs import Spec


def judge_call(
    book: Book, name: str, output: Spec, effects: Spec | None, patient: bool = True
) -> list[dict[str, Any]]:
    """Findings for a candidate's call at the point `name`, tensor by tensor.

    patient: what seems wrong is held against more and more draws of random rounding first.
    """
    expectation = referee.expectation_of(book, name)
    got = _answers(output, effects)
    found = [_judge_leaf(book, leaf, path, expectation) for path, leaf in got.items()]
    while (wider := _wider(book, expectation, found, patient)) is not None:
        referee.keep(book, name, expectation := wider)
        found = [_judge_leaf(book, leaf, path, expectation) for path, leaf in got.items()]
    if patient and roundings.worth_drawing(book, expectation.expected, expectation.drawn, found):
        found = [f.undecided(roundings.NO_TIME) for f in found]
    if effects is not None:
        found += [
            Finding(path, False, "was not changed, but the reference changes it")
            for path in expectation.moved
            if path not in got and path.removeprefix("state ") not in book.session.unsaved
        ]
    return [finding.to_json() for finding in found]


def _answers(output: Spec, effects: Spec | None) -> dict[str, Spec]:
    """All tensors that a call gave or changed, by path."""
    got = {f"output{path}": leaf for path, leaf in specs.tensors(output)}
    for kind, label in (("inputs", "input"), ("state", "state ")) if effects else ():
        group = effects[kind] if effects else {}
        got |= {f"{label}{k}": leaf for k, leaf in zip(group["keys"], group["items"])}
    return got


def _wider(
    book: Book, expectation: Expectation, found: Sequence[Finding], patient: bool
) -> Expectation | None:
    """The expectation with the next results that are as right; None where nothing is wrong, or no
    further result could change that."""
    if all(f.ok is True for f in found):
        return None
    if expectation.sharp:
        return _unsharpened(book, expectation)
    if patient and not expectation.all_ways:
        return _with_ways(book, expectation)
    worth = roundings.worth_drawing(book, expectation.expected, expectation.drawn, found)
    if not patient or not worth or roundings.out_of_time(book):
        return None
    return _with_draws(book, expectation)


def _with_ways(book: Book, expectation: Expectation) -> Expectation:
    """The expectation with what eager's own libraries make of the same values laid out otherwise:
    with channels last they take other kernels, which sum in another order."""
    done = replace(expectation, all_ways=True)
    # In another layout random numbers fall on other elements. Large problems need the room.
    given = specs.byte_count(drawing.inputs(book, expectation.point.inputs))
    large = expectation.byte_count + given > oracle.KEPT_BYTES
    if expectation.wide is None or expectation.random or large:
        return done
    try:
        way = _channels_last(book, expectation)
    except (RuntimeError, MemoryError):
        # The forward does not take inputs so laid out, or there is too little memory to see.
        return done
    slices = referee.slices_of_one(_eager_again(expectation), expectation.wide, [way])
    return replace(done, expected=judge.with_ways(expectation.expected, slices))


def _channels_last(book: Book, expectation: Expectation) -> dict[str, torch.Tensor]:
    """The reference's results at a point, of inputs and weights whose channels come last."""
    point, session = expectation.point, book.session
    referee.prepare(book, "reference", point)
    inputs = tensors.map_leaves(session.inputs["point"], layouts.permuted_copy)
    runner.drop_inputs(session, "point")
    module = copy.deepcopy(session.slots["reference"])
    for parameter in module.parameters():
        parameter.data = (
            layouts.permuted_copy(parameter.data) if parameter.ndim > 2 else parameter.data
        )
    effects = oracle.run(module, inputs, point.seed).flat()
    return {path: effects[path] for path in expectation.expected}


def _with_draws(book: Book, expectation: Expectation) -> Expectation:
    """The expectation with more draws of random rounding, of which each may be a right answer."""
    point, known = expectation.point, expectation.expected
    seeds, eager = roundings.next_seeds(expectation.drawn), _eager_again(expectation)
    if expectation.rows is not None:
        slices = referee.cut(book, point, eager, expectation.rows, seeds)
    else:
        inputs = referee.fresh_inputs(book, point)
        drawn = roundings.drawn_runs(book, point, inputs, seeds, expectation.changed)
        assert expectation.wide is not None
        slices = referee.slices_of_one(eager, expectation.wide, drawn)
    found = judge.with_draws(known, slices)
    return replace(expectation, expected=found, drawn=seeds.stop)


def _eager_again(expectation: Expectation) -> dict[str, torch.Tensor]:
    """Eager's own tensors by path."""
    found = {}
    for path, expected in expectation.expected.items():
        parts = [part.eager for part in expected.parts()]
        whole = torch.cat(parts) if len(parts) > 1 else parts[0]
        found[path] = judge.as_given(expected, whole)
    return found


def _unsharpened(book: Book, sharp: Expectation) -> Expectation:
    """The expectation with all that the reference allows, where its own error alone was allowed."""
    eager = _eager_again(sharp)
    whole = (sharp.changed, sharp.random)
    found = referee.expectation_from(book, sharp.point, eager, *whole, 0, sharp=False)
    return replace(found, moved=sharp.moved)


def same(book: Book, first: Spec, second: Spec) -> bool:
    """Whether two outputs of the candidate are equal."""
    pairs = zip(specs.tensors(first), specs.tensors(second), strict=True)
    return all(
        tensors.same_bits(referee.read(book, a), referee.read(book, b)) for (_, a), (_, b) in pairs
    )


def _judge_leaf(book: Book, leaf: Spec, path: str, expectation: Expectation) -> Finding:
    if path not in expectation.expected:
        return Finding(path, False, "was changed, but the reference leaves it as it is")
    tensor, sample = referee.read(book, leaf), expectation.point.sample
    if sample is not None:
        tensor = sample.of(tensor)
    return judge.judge(tensor.to(book.session.device), expectation.expected[path])


COMMANDS = {"judge_call": judge_call, "same": same}
