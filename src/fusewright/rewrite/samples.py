"""Random tensors and shapes from which rules draw their own test instances, and graphs of them.

Only descriptions are drawn here, never values: an instance is a graph over named inputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from fusewright.ir import graph as g
from fusewright.ir import offsets
from fusewright.ir.dtypes import FLOAT64, DType
from fusewright.ir.graph import Shape

T = TypeVar("T")


@dataclass(slots=True)
class Draw:
    """A source of random shapes and inputs; equal seeds draw equal instances."""

    random: Random
    count: int = field(default=0)

    def extent(self, low: int = 2, high: int = 5) -> int:
        return self.random.randint(low, high)

    def shape(self, low: int = 1, high: int = 3) -> Shape:
        """A shape of `low` to `high` axes of extent 2 to 5."""
        return tuple(self.extent() for _ in range(self.random.randint(low, high)))

    def tensor(self, shape: Shape | None = None, dtype: DType = FLOAT64) -> g.Node:
        """A new input."""
        self.count += 1
        return g.input_(f"x{self.count}", self.shape() if shape is None else shape, dtype)

    def positive(self, shape: Shape | None = None) -> g.Node:
        """A value that is certainly above 0."""
        return g.unary("exp", self.tensor(shape))

    def number(self) -> float:
        """A finite factor far from 0, 1 and -1 and no power of two."""
        return self.random.choice((-1, 1)) * self.random.choice((0.3, 0.7, 1.3, 1.9, 2.7, 5.1))

    def above(self) -> float:
        """A positive such factor."""
        return abs(self.number())

    def pick(self, options: Sequence[T]) -> T:
        return self.random.choice(options)

    def chance(self) -> bool:
        return self.random.random() < 0.5

    def like(self, value: float, x: g.Node) -> g.Node:
        """`value` in the shape and dtype of x."""
        return g.const(value, x.dtype, x.shape)

    def row(self, shape: Shape, axes: Sequence[int]) -> g.Node:
        """A new input that depends on `axes` of `shape` only, broadcast to it."""
        small = self.tensor(tuple(shape[a] for a in axes))
        return g.insert_expanded(small, [k for k in range(len(shape)) if k not in axes], shape)


def graph_of(*roots: g.Node) -> g.Graph:
    """A graph with `roots` as outputs."""
    inputs = [n for n in g.topological(roots) if isinstance(n, g.Input)]
    return g.Graph(
        inputs=tuple(g.InputSpec(x, (x.name,), offsets.row_major(x.shape)) for x in inputs),
        outputs=roots,
        output_strides=tuple(offsets.row_major(r.shape) for r in roots),
        result=g.Tree("tuple", ("",) * len(roots), tuple(g.Leaf(k) for k in range(len(roots)))),
    )
