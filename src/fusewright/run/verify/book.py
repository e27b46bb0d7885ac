"""What the referee knows: draws, weights, expectations. Records only, no arithmetic."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch

from fusewright.run.verify import backward, tensors
from fusewright.run.verify.judge import Expected
from fusewright.run.verify.runner import Session
from fusewright.run.verify.specs import Spec


@dataclass(frozen=True, slots=True)
class Point:
    """One set of weights and inputs, a mode and a seed: what the reference is evaluated at.

    sample: the rows of the batch that are looked at, None for all of them. after: the inputs of the
    calls that went before it, from the same weights on.
    """

    weights: str
    inputs: str
    seed: int
    train: bool
    sample: tensors.Sample | None = None
    after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Draw:
    """How inputs or weights were drawn, so that they need not be kept: `prefix` names their files,
    `first` holds the first elements of each tensor, to see that they come out the same again."""

    kind: str
    seed: int
    prefix: str
    rows: int | None
    first: tuple[Any, ...]


@dataclass(slots=True)
class Expectation:
    """Everything known of one point.

    oracle: how the float64 values were had, or why not. wide: them (None when sliced or not had).
    cut: the number of batch rows that this is about, None for all. sharp: bounds that follow from
    eager's own error alone; they are widened before anything is called wrong. changed: the inputs
    and state entries that eager writes. moved: those that it leaves with other values. rows: of the
    slices, where there are such. drawn: how many random roundings `expected` has been widened by.
    all_ways: whether all ways in which eager computes were looked at.
    """

    point: Point
    expected: dict[str, Expected]
    changed: tuple[str, ...]
    random: bool
    oracle: str
    wide: dict[str, torch.Tensor] | None
    cut: int | None = None
    sharp: bool = False
    moved: tuple[str, ...] = ()
    rows: int | None = None
    drawn: int = 0
    all_ways: bool = False

    @property
    def byte_count(self) -> int:
        """What it holds at most: each value as eager has it and in float64."""
        return sum(16 * math.prod(expected.shape) for expected in self.expected.values())


@dataclass(frozen=True, slots=True)
class Stamps:
    """Which weights a module was given last, and each parameter's identity and version since."""

    weights: str
    entries: dict[str, tuple[int, int]]


@dataclass(slots=True)
class Book:
    """The referee's mutable state, beside its `Session`."""

    session: Session
    precision: str = "match"
    recipes: dict[str, Draw] = field(default_factory=dict)
    draws: dict[str, Spec] = field(default_factory=dict)
    weights: dict[str, Spec] = field(default_factory=dict)
    points: dict[str, Point] = field(default_factory=dict)
    expectations: dict[str, Expectation] = field(default_factory=dict)
    stale: dict[str, torch.Tensor] = field(default_factory=dict)
    gradients: dict[str, Expected] = field(default_factory=dict)
    gradient_draws: int = 0
    gradient_point: Point | None = None
    samples: dict[str, Any] = field(default_factory=dict)
    stamps: dict[str, Stamps] = field(default_factory=dict)
    written: dict[str, None] = field(default_factory=dict)
    redrawn: list[str] = field(default_factory=list)
    null_seconds: float = 0.0
    draw_seconds: float = 0.0
    jittered_runs: int = 2
    ops: dict[bool, list[str]] = field(default_factory=dict)
    seconds: float = 0.0
    comb: backward.Comb | None = None
    marked: dict[str, list[int]] = field(default_factory=dict)
