"""A call in double precision, which a caller gets by `module.double()`: a file may refuse it, but a
kernel that reads float32 must not be given doubles. As a command of the referee.
"""

from typing import Any

import torch

from fusewright.run.verify import drawing, judge, metrics, oracle, referee, specs, tensors
from fusewright.run.verify.book import Book
from fusewright.run.verify.judge import Finding
from fusewright.run.verify.specs import Spec
from fusewright.run.verify.weights import wide_module

# Relative L2 errors: of arithmetic in double precision at most, and of any in single precision.
_DOUBLE, _SINGLE = 1e-9, 1e-5
# And of any in a narrower type, in units of what that one allows.
_NARROW = 8.0


def judge_doubles(book: Book, name: str, inputs: str, output: Spec) -> list[dict[str, Any]]:
    """Findings for a candidate's call in double precision with `inputs`, else as at the point
    `name`, against eager's. Less than its precision is left open, as far as the working precision
    is right there. Raises what the reference raises when it is called so."""
    expectation = referee.expectation_of(book, name)
    point, known = expectation.point, expectation.expected
    module = wide_module(book, point.weights, point.train)
    given = tensors.map_leaves(drawing.loaded(book, inputs), torch.clone)
    right = oracle.run(module, given, point.seed).output
    pairs = zip(tensors.tensor_leaves(right), specs.tensors(output))
    found = [
        _compare(f"output{p}", t, referee.read(book, leaf), known[f"output{p}"].bound.norm)
        for (p, t), (_, leaf) in pairs
    ]
    return [finding.to_json() for finding in found]


def _compare(name: str, right: torch.Tensor, got: torch.Tensor, bound: float) -> Finding:
    """Of integers, which a rounding may turn, and of narrower results nothing is said."""
    if got.shape != right.shape:
        return Finding(name, False, f"has the shape {list(got.shape)}, not {list(right.shape)}")
    if judge.is_exact(right.dtype) or metrics.real_dtype(right.dtype) != torch.float64:
        return Finding(name, True, "not compared")
    if judge.is_exact(got.dtype) or got.is_complex() != right.is_complex():
        return Finding(name, False, f"is {got.dtype}, not {right.dtype}")
    mine, theirs = (metrics.as_real(t.to(right.device)) for t in (right, got))
    if bool((mine.isfinite() != theirs.isfinite()).any()):
        return Finding(name, False, "has NaN or Inf in the wrong places")
    sums = metrics.Accumulator(mine.shape, metrics.root_mean_square(mine), mine.device)
    sums.add(theirs, mine, metrics.joint_mask(mine, theirs))
    norm = sums.result().norm
    most = max(_SINGLE, bound, _NARROW * metrics.floor_of(got.dtype))
    same = got.dtype == right.dtype and norm <= _DOUBLE
    text = f"{got.dtype}, relative L2 error {norm:.2g}, allowed {_DOUBLE:.2g}"
    return Finding(name, True if same else None if norm <= most else False, text, norm)


COMMANDS = {"judge_doubles": judge_doubles}
