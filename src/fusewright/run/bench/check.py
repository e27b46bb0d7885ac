"""Checks that a timed call did the work: results, inputs, global state. No timing, no verifier.

This is not the verifier: it compares with the reference at a tolerance that tells a wrong, stale or
missing result from a right one. Which precision class a result belongs to is `verify`'s business.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_flatten, tree_map

from fusewright.run.bench.machine import precision_flags

# Relative L2 against the reference. Wide enough for a reference in TF32 (3e-4) and for half types,
# far below what a stale or missing result shows (about 1).
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}
# Above this a float32 result is worth a warning: no float32 computation differs by so much.
FLOAT32_CLASS = 2e-5
CHUNK = 1 << 24
UP_SHARE = 0.5
# A difference of so many times what a unit in the last place of the inputs makes is rounding.
ROUNDINGS = 16.0
WATCHED = (
    (time, "perf_counter"),
    (time, "perf_counter_ns"),
    (time, "time"),
    (torch.cuda, "synchronize"),
    (torch.cuda, "Event"),
    (torch.cuda.Event, "record"),
    (torch.cuda.Event, "elapsed_time"),
    (torch.cuda.Event, "synchronize"),
    (torch, "allclose"),
    (torch, "equal"),
    (torch, "manual_seed"),
    (torch.linalg, "vector_norm"),
    (torch.nn.Module, "__call__"),
    (torch.nn.Module, "load_state_dict"),
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a result compares: worst relative L2 over all outputs, and what is wrong, if anything.

    coarse: a float32 output differs by more than float32 arithmetic explains.
    """

    relative_l2: float
    problem: str | None
    coarse: bool = False


def compare(result: Any, expected: Any) -> Comparison:
    """Compares two results (any tree of tensors and values) leaf by leaf.

    Floats by relative L2 with non-finite values at the same places; integers and bools exactly.
    """
    ours, our_tree = tree_flatten(result)
    theirs, their_tree = tree_flatten(expected)
    if our_tree != their_tree:
        return Comparison(float("inf"), f"structure {our_tree} instead of {their_tree}")
    worst, coarse = 0.0, False
    for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        difference, problem = _compare_leaf(a, b)
        worst = max(worst, difference)
        if problem:
            return Comparison(worst, f"output {index}: {problem}")
        if isinstance(b, torch.Tensor) and b.dtype == torch.float32:
            coarse = coarse or difference > FLOAT32_CLASS
    return Comparison(worst, None, coarse)


def _compare_leaf(a: Any, b: Any) -> tuple[float, str | None]:
    if not isinstance(b, torch.Tensor):
        return (0.0, None) if a == b else (float("inf"), f"{a!r} instead of {b!r}")
    if type(a) is not type(b):
        return float("inf"), f"type {type(a).__name__} instead of {type(b).__name__}"
    if a.shape != b.shape or a.dtype != b.dtype or a.device != b.device:
        return float("inf"), f"{_describe(a)} instead of {_describe(b)}"
    if not (b.is_floating_point() or b.is_complex()):
        same = bool(torch.equal(a, b))
        return (0.0, None) if same else (float("inf"), "integer values differ")
    difference = relative_l2(a, b)
    limit = TOLERANCE.get(b.dtype, TOLERANCE[torch.bfloat16])
    wrong = not difference <= limit
    return (
        difference,
        f"relative L2 difference {difference:.3g}, limit {limit:g}" if wrong else None,
    )


def _describe(tensor: torch.Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)} on {tensor.device}"


def relative_l2(a: torch.Tensor, b: torch.Tensor) -> float:
    """||a - b|| / ||b|| in float64 sums, in chunks; equal NaN and Inf count as no difference.

    Returns inf where non-finite values stand at different places, and for b = 0 unless a = 0 too.
    """
    difference = norm = 0.0
    flat_a, flat_b = a.detach().reshape(-1), b.detach().reshape(-1)
    for start in range(0, flat_b.numel(), CHUNK):
        x, y = flat_a[start : start + CHUNK], flat_b[start : start + CHUNK]
        delta, size = _chunk_norms(x, y)
        difference, norm = difference + delta, norm + size
    if difference == 0:
        return 0.0
    return (difference / norm) ** 0.5 if norm > 0 else float("inf")


def _chunk_norms(x: torch.Tensor, y: torch.Tensor) -> tuple[float, float]:
    """Sums of squares of the difference and of the expected values."""
    delta, size = _square_sum(x - y), _square_sum(y)
    if delta == delta and size == size and max(delta, size) < float("inf"):
        return delta, size
    finite = torch.isfinite(y)
    same = torch.where(finite, torch.isfinite(x), (x == y) | (torch.isnan(x) & torch.isnan(y)))
    if not bool(same.all()):
        return float("inf"), 1.0
    return _square_sum((x - y)[finite]), _square_sum(y[finite])


def _square_sum(values: torch.Tensor) -> float:
    wide = torch.complex128 if values.is_complex() else torch.float64
    return float(torch.linalg.vector_norm(values, dtype=wide)) ** 2


def fingerprint(tree: Any) -> tuple[int, ...]:
    """The sum of the bit patterns of every tensor in a tree, a checksum that one pass computes."""
    leaves = [x for x in tree_flatten(tree)[0] if isinstance(x, torch.Tensor)]
    return tuple(_checksum(x) for x in leaves)


def _checksum(tensor: torch.Tensor) -> int:
    flat = tensor.detach().reshape(-1)
    if flat.is_complex():
        flat = torch.view_as_real(flat).reshape(-1)
    if flat.dtype == torch.bool:
        flat = flat.view(torch.uint8)
    integers = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    bits = flat.view(integers[flat.element_size()])
    return int(bits.sum(dtype=torch.int64)) ^ flat.numel()


def blueprint(tree: Any) -> list[tuple[torch.Size, torch.dtype, torch.device]]:
    """Shapes, dtypes and devices of the tensors in a result: what `poison` allocates."""
    leaves = [x for x in tree_flatten(tree)[0] if isinstance(x, torch.Tensor)]
    return [(x.shape, x.dtype, x.device) for x in leaves]


def nudged(tree: Any) -> Any:
    """The tree with every float scaled by one unit in the last place, up or down by chance."""

    def nudge(value: Any) -> Any:
        if not (isinstance(value, torch.Tensor) and value.is_floating_point()):
            return value
        eps = torch.finfo(value.dtype).eps
        up = torch.rand(value.shape, device=value.device) < UP_SHARE
        return up.to(value.dtype).mul_(2 * eps).add_(1 - eps).mul_(value)

    return tree_map(nudge, tree)


def poison(plan: Sequence[tuple[torch.Size, torch.dtype, torch.device]]) -> None:
    """Leaves NaN in the memory that results will likely get: an unwritten result shows it."""
    held = [torch.empty(shape, dtype=dtype, device=device) for shape, dtype, device in plan]
    for tensor in held:
        floating = tensor.is_floating_point() or tensor.is_complex()
        tensor.fill_(float("nan") if floating else 1)


def overlaps(a: Any, b: Any) -> bool:
    """Whether any tensor of one tree starts in the same storage as one of the other tree."""
    return bool(_storages(a) & _storages(b))


def _storages(tree: Any) -> set[int]:
    leaves = [x for x in tree_flatten(tree)[0] if isinstance(x, torch.Tensor) and x.numel()]
    return {x.untyped_storage().data_ptr() for x in leaves}


def watched_identities() -> tuple[int, ...]:
    """Identities of the functions that a measurement rests on."""
    return tuple(id(getattr(owner, name)) for owner, name in WATCHED)


def patched(before: Sequence[int]) -> list[str]:
    """Names of the watched functions that are not the same objects as before."""
    now = watched_identities()
    pairs = zip(WATCHED, before, now, strict=True)
    return [f"{owner.__name__}.{name}" for (owner, name), old, new in pairs if old != new]


def changed_flags(before: dict[str, Any]) -> list[str]:
    """Names of torch's global settings that differ from before, with both values."""
    now = precision_flags()
    return [f"{k}: {before[k]} -> {now[k]}" for k in before if before[k] != now[k]]
