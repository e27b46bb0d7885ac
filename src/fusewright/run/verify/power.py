"""Null candidates: wrong answers derived from the reference, to learn what a point can tell apart.

Runs in the referee. A null is "rejected" where a candidate that answered so would be rejected,
"undetected" where it differs from the reference and would pass, "coarse" where it is arithmetic no
coarser than the reference's own, and "identical" where it does not differ by more than the output's
own rounding, or than the reference itself errs: answering so would be no error there.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from fusewright.run.verify import judge, metrics, oracle, referee, roundings, tensors
from fusewright.run.verify.arithmetic import (
    ALL_CONTRACTIONS,
    Float64,
    OpSkipper,
    round_bf16,
    round_in_place,
    round_tf32,
)
from fusewright.run.verify.book import Book, Expectation

# Time, over all points, for the nulls that need a float64 forward each; and how many of them are
# tried at a point at least and at most.
_BUDGET_S = 6.0
_LEAST, _MOST = 8, 64
_TAIL_SHARE = 100
# An output is of the class of an arithmetic where more than this part of its unit roundoff is
# allowed: one rounding of each value has a root mean square of 0.3 to 0.5 units, and a half dtype
# among a reference's intermediate values shows in full. The next finer class is 2^-3 or less of it.
_COARSE = 4.0


@dataclass(frozen=True, slots=True)
class Null:
    """A named wrong answer: tensors by output path. `essential`: it ignores the input, so a
    reference that equals it everywhere cannot be tested; `path` is the output that it is about.
    unit: the unit roundoff of the arithmetic that it stands for, 0 for none."""

    name: str
    make: Callable[[], dict[str, torch.Tensor]]
    essential: bool = False
    path: str = ""
    unit: float = 0.0


def nulls(book: Book, name: str, known: list[str]) -> list[dict[str, Any]]:
    """Try every null candidate at a point, but those in `known`; one record for each."""
    expectation = referee.testable(book, referee.expectation_of(book, name))
    if expectation.wide is None:
        return []
    found = [
        null for null in _simple(book, expectation, expectation.wide) if null.name not in known
    ]
    found += _selected(book, expectation, known)
    return [_record(null, expectation) for null in found]


def _record(null: Null, expectation: Expectation) -> dict[str, Any]:
    """Hold a null against the outputs that it names."""
    size, bound, rejected = 0.0, 0.0, False
    same = coarse = True
    try:
        answer = null.make()
    except oracle.OracleUnavailable:
        # Leaving an op or a parameter out made the forward fail: such a candidate fails too.
        return _as_record(null, "rejected", math.inf, 0.0)
    for path, tensor in answer.items():
        expected = expectation.expected.get(path)
        if expected is None or not path.startswith("output"):
            continue
        finding = _compare(tensor, expected)
        rejected |= finding.ok is False
        size, bound = max(size, finding.norm), max(bound, finding.bound)
        small = finding.norm <= max(_rounding_of(expected), _own_error(finding, expected))
        same &= small
        coarse &= small or 0 < null.unit < _COARSE * expected.bound.norm
    passing = "identical" if same else "coarse" if coarse else "undetected"
    status = "rejected" if rejected else passing
    return _as_record(null, status, size, bound)


def _as_record(null: Null, status: str, size: float, bound: float) -> dict[str, Any]:
    record = {"name": null.name, "status": status, "essential": null.essential, "path": null.path}
    return record | {"size": size, "bound": bound}


def _compare(tensor: torch.Tensor, expected: judge.Expected) -> judge.Finding:
    if tuple(tensor.shape) != expected.shape:
        return judge.Finding(expected.path, False, "another shape", math.inf)
    return judge.judge_values(metrics.as_real(tensor) if tensor.is_complex() else tensor, expected)


def _rounding_of(expected: judge.Expected) -> float:
    if expected.exact:
        return 0.0
    return metrics.UNIT_ROUNDOFF[metrics.real_dtype(expected.dtype)]


def _own_error(finding: judge.Finding, expected: judge.Expected) -> float:
    """The reference's error, as far as its dtype's floor: nobody can ask for less."""
    if expected.exact:
        return 0.0
    return min(finding.eager, metrics.floor_of(metrics.real_dtype(expected.dtype)))


def _simple(book: Book, expectation: Expectation, wide: dict[str, torch.Tensor]) -> Iterator[Null]:
    """Nulls that need no forward: for each output alone."""
    inputs = dict(tensors.tensor_leaves(referee.inputs_of(book, expectation)))
    for path, right in wide.items():
        if not path.startswith("output") or not right.numel():
            continue
        numbers = not judge.is_exact(right.dtype)
        yield Null(
            f"zeros as {path}", lambda p=path, r=right: {p: torch.zeros_like(r)}, numbers, path
        )
        stale = book.stale.get(path)
        if stale is not None and stale.shape == right.shape and numbers:
            yield Null(f"another call's {path}", lambda p=path, s=stale: {p: s}, True, path)
            yield Null(
                f"a constant as {path}", lambda p=path, s=stale: {p: _mean_like(s)}, True, path
            )
        if right.ndim and right.shape[0] > 1:
            yield Null(f"the first row repeated as {path}", lambda p=path, r=right: {p: _first(r)})
        for source, tensor in inputs.items():
            if tensor.shape == right.shape and tensor.dtype.is_floating_point == numbers:
                yield Null(
                    f"input{source} as {path}", lambda p=path, t=tensor, r=right: {p: t.to(r.dtype)}
                )


def _mean_like(tensor: torch.Tensor) -> torch.Tensor:
    finite = tensor[tensor.isfinite()]
    return torch.full_like(tensor, 0.0) + (finite.mean() if finite.numel() else 0.0)


def _first(tensor: torch.Tensor) -> torch.Tensor:
    return tensor[:1].expand_as(tensor).contiguous()


def _selected(book: Book, expectation: Expectation, known: list[str]) -> list[Null]:
    """The nulls that run the reference in float64 with something wrong; as many as time allows."""
    train = expectation.point.train
    if train not in book.ops:
        start = time.perf_counter()
        book.ops[train] = _ops(book, expectation)
        book.seconds = time.perf_counter() - start
    ops, seconds = book.ops[train], book.seconds
    every = [*_roundings(book, expectation), *_tails(book, expectation)]
    every += [*_parameters(book, expectation), *_skips(book, expectation, ops)]
    left = [null for null in every if null.name not in known]
    affordable = int((_BUDGET_S - book.null_seconds) / max(seconds, 1e-4))
    count = max(_LEAST, min(_MOST, affordable))
    book.null_seconds += seconds * min(count, len(left))
    if len(left) <= count:
        return left
    # Evenly spread, so that a long model is probed at its beginning, middle and end.
    return [left[i * len(left) // count] for i in range(count)]


def _run(book: Book, expectation: Expectation, **changes: Any) -> dict[str, torch.Tensor]:
    """A float64 run of the expectation's point, with `changes` to roundings.wide_run."""
    inputs = referee.inputs_of(book, expectation)
    rounded = changes.pop("rounded", ALL_CONTRACTIONS)
    mode = Float64(roundings.base_dtype(book, inputs), changes.pop("rounding", None), rounded)
    return roundings.wide_run(book, expectation.point, inputs, mode, **changes)


def _ops(book: Book, expectation: Expectation) -> list[str]:
    counter = OpSkipper()
    _run(book, expectation, inner=counter)
    return counter.seen


def _skips(book: Book, expectation: Expectation, ops: list[str]) -> Iterator[Null]:
    for i, op in enumerate(ops):
        yield Null(
            f"op {i} ({op}) left out",
            lambda i=i: _run(book, expectation, inner=OpSkipper(i)),
        )


def _roundings(book: Book, expectation: Expectation) -> Iterator[Null]:
    """Inputs, weights and operands of contractions rounded, as far as that is not allowed."""
    allowed = roundings.allowed_roundings(book.precision, book.session.device)
    for label, rounding, unit in (
        ("TF32", round_tf32, 2.0**-11),
        ("bfloat16", round_bf16, 2.0**-8),
    ):
        if _is_narrow(expectation):
            continue
        permitted = frozenset(op for given, ops in allowed if given is rounding for op in ops)
        if permitted:
            # Only what is not permitted may be wrong; the inputs may feed a permitted op.
            rest = ALL_CONTRACTIONS - permitted
            yield Null(
                f"{label} arithmetic where it is not allowed",
                lambda r=rounding, ops=rest: _run(book, expectation, rounding=r, rounded=ops),
                unit=unit,
            )
            continue
        yield Null(
            f"{label} arithmetic",
            lambda r=rounding: _run(
                book, expectation, edit=lambda _, t: round_in_place(r, t), rounding=r
            ),
            unit=unit,
        )


def _is_narrow(expectation: Expectation) -> bool:
    """No output is wide enough for TF32 or bfloat16 to be a loss."""
    wide = (torch.float32, torch.float64, torch.complex64, torch.complex128)
    return not any(e.dtype in wide for e in expectation.expected.values())


def _parameters(book: Book, expectation: Expectation) -> Iterator[Null]:
    """One parameter zeroed."""
    for name, parameter in book.session.slots["reference"].named_parameters():
        if parameter.is_floating_point():
            yield Null(
                f"parameter {name} as zeros", lambda n=name: _edited(book, expectation, n, None)
            )


def _tails(book: Book, expectation: Expectation) -> Iterator[Null]:
    """The last hundredth of an axis zeroed: of each input axis but the batch, of each weight."""
    inputs = dict(tensors.tensor_leaves(referee.inputs_of(book, expectation)))
    weights = dict(book.session.slots["reference"].named_parameters())
    for kind, found, first in (("input", inputs, 1), ("parameter ", weights, 1)):
        for name, tensor in found.items():
            last = tensor.ndim if kind == "input" else min(tensor.ndim, 2)
            for axis in range(first, last) if tensor.is_floating_point() else ():
                if tensor.shape[axis] > 1:
                    yield Null(
                        f"the last 1 % of axis {axis} of {kind}{name} dropped",
                        lambda n=name, a=axis: _edited(book, expectation, n, a),
                    )


def _edited(
    book: Book, expectation: Expectation, name: str, axis: int | None
) -> dict[str, torch.Tensor]:
    """A run with one input or parameter zeroed: wholly, or the last hundredth of an axis."""

    def edit(entry: str, tensor: torch.Tensor) -> None:
        if entry == name and axis is None:
            tensor.zero_()
        elif entry == name and axis is not None:
            count = max(1, tensor.shape[axis] // _TAIL_SHARE)
            tensor.narrow(axis, tensor.shape[axis] - count, count).zero_()

    return _run(book, expectation, edit=edit)


COMMANDS = {"nulls": nulls}
