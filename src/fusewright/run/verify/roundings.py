"""Results of the reference that are as right as the computation determines: in float64, with every
value randomly rounded, with the operands of contractions rounded as far as that is allowed.

Nothing is judged here, beyond whether more random roundings could change a judgement.
"""

import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch

from fusewright.run.verify import drawing, metrics, oracle, weights
from fusewright.run.verify.arithmetic import (
    ALL_CONTRACTIONS,
    CONVOLUTIONS,
    Float64,
    Jitter,
    Rounding,
    round_bf16,
    round_tf32,
)
from fusewright.run.verify.book import Book, Point
from fusewright.run.verify.judge import Expected, Finding

# How many draws a wrong answer is held against: first so many, then so many in all, ...
_DRAWS = (6, 14, 32, 64, 128)
# Time for all of them, over all points.
_BUDGET_S = 20.0
NO_TIME = "no time is left to try whether rounding alone does that"
# What is so many times as far as rounding could go by the draws made, no further draw will reach:
# while there is time for more, since there are roundings (a flipped choice) that few draws show,
# and when it is up.
_HOPELESS, _HOPELESS_AT_LAST = 30.0, 3.0
# Part of an integer output that differs, above which rounding is no explanation.
_MOST_FLIPPED = 0.1
_FIRST_DRAW = 1000
# Largest errors of the roundings that may be allowed; their root mean square is about half of it.
_LARGEST: dict[Any, float] = {round_tf32: 2.0**-11, round_bf16: 2.0**-8}


def base_dtype(book: Book, inputs: list[Any]) -> torch.dtype:
    return oracle.base_dtype(book.session.slots["reference"], inputs)


def allowed_roundings(
    precision: str, device: torch.device
) -> list[tuple[Rounding, frozenset[str]]]:
    """(rounding of operands, the ops it may be applied to) that `--precision` lets a kernel use.

    "match" allows what eager may use under torch's current flags on this device.
    """
    if precision == "bf16":
        return [(round_tf32, ALL_CONTRACTIONS), (round_bf16, ALL_CONTRACTIONS)]
    if precision == "tf32":
        return [(round_tf32, ALL_CONTRACTIONS)]
    if precision == "match" and device.type == "cuda":
        matmul = torch.backends.cuda.matmul.allow_tf32
        convolution = torch.backends.cudnn.allow_tf32
        ops = frozenset(
            name for name in ALL_CONTRACTIONS if (convolution if name in CONVOLUTIONS else matmul)
        )
        return [(round_tf32, ops)] if ops else []
    return []


def wide_runs(
    book: Book,
    point: Point,
    inputs: list[Any],
    allowed: bool = True,
    changed: Collection[str] = (),
) -> Iterator[dict[str, torch.Tensor]]:
    """The float64 result and, if asked for, others that are as right as it: with every value
    randomly rounded, and in tensor-core arithmetic that is allowed. Each is computed when it is
    asked for."""
    base = base_dtype(book, inputs)
    yield wide_run(book, point, inputs, Float64(base), changed=changed)
    for seed in range(book.jittered_runs if allowed else 0):
        jitter = Jitter(metrics.UNIT_ROUNDOFF[base], seed)
        mode = Float64(base, jitter=jitter)
        yield wide_run(book, point, inputs, mode, jitter.edit, changed=changed)
    roundings = allowed_roundings(book.precision, book.session.device) if allowed else []
    for rounding, ops in roundings:
        yield wide_run(book, point, inputs, Float64(base, rounding, ops), changed=changed)


def drawn_runs(
    book: Book, point: Point, inputs: list[Any], seeds: range, changed: Collection[str] = ()
) -> Iterator[dict[str, torch.Tensor]]:
    """Further results that are as right, one for each seed: every value randomly rounded, sums of
    products as far off as the floor allows, and their operands as the precision allows."""
    for seed in seeds:
        start, (mode, jitter) = time.perf_counter(), draw(book, base_dtype(book, inputs), seed)
        made = wide_run(book, point, inputs, mode, jitter.edit, changed=changed)
        book.draw_seconds += time.perf_counter() - start
        yield made


def draw(book: Book, base: torch.dtype, seed: int) -> tuple[Float64, Jitter]:
    """The arithmetic of one draw."""
    jitter = Jitter(metrics.UNIT_ROUNDOFF[base], _FIRST_DRAW + seed, sums=True)
    loosest = allowed_roundings(book.precision, book.session.device)[-1:]
    for rounding, ops in loosest:
        operands = Jitter(_LARGEST[rounding] / 2, _FIRST_DRAW + seed)
        return Float64(base, operands.moved, ops, jitter), jitter
    return Float64(base, jitter=jitter), jitter


def wide_run(
    book: Book,
    point: Point,
    inputs: list[Any],
    mode: Float64,
    edit: oracle.Edit | None = None,
    inner: Any = None,
    changed: Collection[str] = (),
) -> dict[str, torch.Tensor]:
    """One float64 run at a point: by path the outputs, and what `changed` names of the inputs and
    the state after it.

    edit: changes every state entry (by its name) and every input (by its path, such as `[0]`).
    inner: a further dispatch mode.
    """
    module = weights.wide_module(book, point.weights, point.train)
    if edit is not None:
        oracle.edit_state(module, edit)
    for name in point.after:
        earlier = oracle.widen_inputs(drawing.loaded(book, name), edit)
        oracle.run_wide(module, earlier, point.seed, mode, inner)
    wide = oracle.widen_inputs(inputs, edit)
    effects = oracle.run_wide(module, wide, point.seed, mode, inner)
    owned = {t.untyped_storage().data_ptr() for t in effects.state.values()}
    return {
        path: t.detach().clone() if t.untyped_storage().data_ptr() in owned else t.detach()
        for path, t in effects.flat().items()
        if path.startswith("output") or path in changed
    }


def next_seeds(drawn: int) -> range:
    """The seeds of the draws after the first `drawn` ones."""
    return range(drawn, next((n for n in _DRAWS if n > drawn), drawn))


def worth_drawing(
    book: Book, expected: Mapping[str, Expected], drawn: int, found: Sequence[Finding]
) -> bool:
    """Whether more draws could show that what was not found right is as right as can be."""
    far = _HOPELESS_AT_LAST if out_of_time(book) else _HOPELESS
    open_ = [(f, expected[f.path]) for f in found if f.ok is not True and f.path in expected]
    return bool(next_seeds(drawn)) and any(_reachable(f, e, drawn, far) for f, e in open_)


def _reachable(finding: Finding, expected: Expected, drawn: int, far: float) -> bool:
    if not expected.has_oracle:
        return False
    if expected.exact:
        return finding.norm <= _MOST_FLIPPED and bool(expected.flips or not drawn)
    return finding.excess < (far if drawn else math.inf)


def out_of_time(book: Book) -> bool:
    return book.draw_seconds > _BUDGET_S
