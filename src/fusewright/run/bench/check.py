"""Checks that a timed call did the work: results, inputs, global state. No timing, no verifier.

This is not the verifier: it compares with the reference at a tolerance that tells a wrong, stale or
missing result from a right one. Which precision class a result belongs to is `verify`'s business.
"""

import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._pytree import tree_map

from fusewright.run.verify.tensors import items_of, map_leaves, tensor_leaves

# Relative L2 against the reference. Wide enough for a reference in TF32 (3e-4) and for half types,
# far below what a stale or missing result shows (about 1).
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}
# So many of the discrete values may differ: a stale or missing result differs in most of them.
DISCRETE = 0.02
# Above this a float32 result is worth a warning: no float32 computation differs by so much.
FLOAT32_CLASS = 2e-5
CHUNK = 1 << 24
PLAIN = (bool, int, float, str, type(None))
UP_SHARE = 0.5
# A difference of so many times what a unit in the last place of the inputs makes is rounding.
ROUNDINGS = 16.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a result compares: worst relative L2 over all outputs, and what is wrong, if anything.

    coarse: a float32 output differs by more than float32 arithmetic explains, or a discrete one at
    all. outputs: the difference of each output, by path; wrong: of those that are wrong.
    """

    relative_l2: float
    problem: str | None
    coarse: bool = False
    wrong: Mapping[str, float] = field(default_factory=dict)
    outputs: Mapping[str, float] = field(default_factory=dict)


def compare(result: Any, expected: Any) -> Comparison:
    """Compares two results (any nesting of tensors and values) leaf by leaf.

    Floats by relative L2 with non-finite values at the same places; of integers and bools, which
    may come of comparing nearly equal values, by the share that differs.
    """
    if (ours := _structure(result)) != (theirs := _structure(expected)):
        return Comparison(float("inf"), f"structure {ours} instead of {theirs}")
    outputs: dict[str, float] = {}
    problems: dict[str, str] = {}
    coarse = False
    for (path, a), (_, b) in zip(_leaves(result), _leaves(expected), strict=True):
        outputs[path], wrong = _compare_leaf(a, b)
        if wrong:
            problems[path] = f"output{path}: {wrong}"
        if isinstance(b, torch.Tensor) and (b.dtype == torch.float32 or _is_discrete(b)):
            coarse = coarse or outputs[path] > FLOAT32_CLASS
    worst, first = max(outputs.values(), default=0.0), next(iter(problems.values()), None)
    wrong_ones = {path: outputs[path] for path in problems}
    return Comparison(worst, first, coarse and not problems, wrong_ones, outputs)


def _structure(value: Any) -> Any:
    """Containers by the names of their types, with their keys; "leaf" for anything else."""
    items = items_of(value)
    if items is None:
        return "leaf"
    name = "mapping" if isinstance(value, Mapping) else type(value).__name__
    return (name, *((key, _structure(item)) for key, item in items))


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    items = items_of(value)
    if items is None:
        yield path, value
    for key, item in items or []:
        yield from _leaves(item, f"{path}[{key}]")


def _compare_leaf(a: Any, b: Any) -> tuple[float, str | None]:
    if not isinstance(b, torch.Tensor):
        # Of what is neither a tensor nor a plain value only the kind is known; a value of a class
        # of its own may claim to equal anything.
        if isinstance(b, PLAIN):
            same = type(a) is type(b) and (a == b or (a != a and b != b))
        else:
            same = type(a).__name__ == type(b).__name__
        wrong = f"{reprlib.repr(a)} instead of {reprlib.repr(b)}"
        return (0.0, None) if same else (float("inf"), wrong)
    if type(a) is not type(b):
        return float("inf"), f"type {type(a).__name__} instead of {type(b).__name__}"
    if a.shape != b.shape or a.dtype != b.dtype or a.device != b.device:
        return float("inf"), f"{_describe(a)} instead of {_describe(b)}"
    if _is_discrete(b):
        differing = int((a != b).sum())
        wrong = f"{differing} of {b.numel()} values differ"
        return differing / max(b.numel(), 1), wrong if differing > DISCRETE * b.numel() else None
    difference = relative_l2(a, b)
    limit = TOLERANCE.get(b.dtype, TOLERANCE[torch.bfloat16])
    wrong = not difference <= limit
    return (
        difference,
        f"relative L2 difference {difference:.3g}, limit {limit:g}" if wrong else None,
    )


def _is_discrete(tensor: torch.Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex())


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
    return tuple(_checksum(x) for _, x in tensor_leaves(tree))


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
    return [(x.shape, x.dtype, x.device) for _, x in tensor_leaves(tree)]


def nudged(tree: Any) -> Any:
    """The tree with every float scaled by one unit in the last place, up or down by chance."""

    def nudge(value: torch.Tensor) -> torch.Tensor:
        if not value.is_floating_point():
            return value
        eps = torch.finfo(value.dtype).eps
        up = torch.rand(value.shape, device=value.device) < UP_SHARE
        return up.to(value.dtype).mul_(2 * eps).add_(1 - eps).mul_(value)

    return mapped(tree, nudge)


def mapped(tree: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The tree with every tensor changed, also those within dataclasses; containers keep types."""
    return tree_map(lambda leaf: map_leaves(leaf, change), tree)


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
    return {x.untyped_storage().data_ptr() for _, x in tensor_leaves(tree) if x.numel()}
